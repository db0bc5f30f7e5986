//! The pieces of an item that can be sold.

use std::{collections::HashSet, convert::Infallible};

use es_persistence::prelude::*;

#[derive(Debug, PartialEq, Event)]
#[event(topic = "shop:Stock")]
pub(crate) enum StockEvent {
    Added {
        pieces: u32,
    },
    Reserved {
        #[event(registered)]
        order: Uuid,
        pieces: u32,
    },
}

#[derive(Default)]
pub(crate) struct Stock {
    pub(crate) pieces: u32,
    reservations: HashSet<Uuid>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{left} pieces are left")]
pub(crate) struct OutOfStock {
    left: u32,
}

impl Aggregate for Stock {
    type Event = StockEvent;

    fn apply(&mut self, event: &StockEvent) {
        match *event {
            StockEvent::Added { pieces } => self.pieces += pieces,
            StockEvent::Reserved { order, pieces } => {
                self.pieces -= pieces;
                self.reservations.insert(order);
            }
        }
    }
}

impl Stock {
    /// The id of the stock of an item.
    pub(crate) fn id(item: &str) -> Uuid {
        Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("shop:Stock/{item}").as_bytes())
    }

    pub(crate) fn add(&self, pieces: u32) -> Result<[StockEvent; 1], Infallible> {
        Ok([StockEvent::Added { pieces }])
    }

    /// Reserves pieces for an order, once.
    pub(crate) fn reserve(&self, order: Uuid, pieces: u32) -> Result<Option<StockEvent>, OutOfStock> {
        if self.reservations.contains(&order) {
            return Ok(None);
        }
        if pieces > self.pieces {
            return Err(OutOfStock { left: self.pieces });
        }
        Ok(Some(StockEvent::Reserved { order, pieces }))
    }
}

#[cfg(test)]
mod tests {
    use es_persistence::aggregate::testing::given;

    use super::*;

    #[test]
    fn pieces_are_reserved_once_for_an_order_and_while_they_last() {
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        given::<Stock>([StockEvent::Added { pieces: 3 }])
            .when(|stock| stock.reserve(first, 2))
            .then([StockEvent::Reserved { order: first, pieces: 2 }])
            .when(|stock| stock.reserve(first, 2))
            .then([])
            .when(|stock| stock.reserve(second, 2))
            .then_rejected(OutOfStock { left: 1 });
    }
}

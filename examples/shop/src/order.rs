//! Orders.

use std::convert::Infallible;

use es_persistence::prelude::*;
use serde::{Deserialize, Serialize};

/// The events of an order, which clients get as JSON, too.
#[derive(Debug, PartialEq, Serialize, Event)]
#[event(topic = "shop:Order")]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum OrderEvent {
    Placed {
        #[event(registered)]
        customer: Uuid,
        item: String,
        pieces: u32,
    },
    Confirmed,
    Rejected {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderStatus {
    #[default]
    New,
    Placed,
    Confirmed,
    Rejected,
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Order {
    status: OrderStatus,
}

impl Aggregate for Order {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        self.status = match event {
            OrderEvent::Placed { .. } => OrderStatus::Placed,
            OrderEvent::Confirmed => OrderStatus::Confirmed,
            OrderEvent::Rejected { .. } => OrderStatus::Rejected,
        };
    }
}

impl SnapshotState for Order {
    const AGGREGATE_TOPIC: &str = "shop:Order";
}

/// A repeated command has no effect: a client that gets no response sends it again.
impl Order {
    pub(crate) fn place(
        &self,
        customer: Uuid,
        item: &str,
        pieces: u32,
    ) -> Result<Option<OrderEvent>, Infallible> {
        let placed = || OrderEvent::Placed { customer, item: item.to_owned(), pieces };
        Ok((self.status == OrderStatus::New).then(placed))
    }

    pub(crate) fn confirm(&self) -> Result<Option<OrderEvent>, Infallible> {
        Ok((self.status == OrderStatus::Placed).then_some(OrderEvent::Confirmed))
    }

    pub(crate) fn reject(&self, reason: String) -> Result<Option<OrderEvent>, Infallible> {
        Ok((self.status == OrderStatus::Placed).then_some(OrderEvent::Rejected { reason }))
    }
}

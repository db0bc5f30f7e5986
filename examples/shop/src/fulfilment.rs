//! The process manager: reserves stock for each order, and confirms or rejects the order.
//!
//! The events of both aggregates and the position of the order's event are one commit.

use std::convert::Infallible;

use es_persistence::{prelude::*, process::EventHandler};

use crate::{
    http::Aggregates,
    order::{Order, OrderEvent},
    stock::Stock,
};

pub(crate) struct Fulfilment {
    pub(crate) orders: Aggregates<Order>,
    pub(crate) stock: Aggregates<Stock>,
}

impl EventHandler<OrderEvent, JsonTranscoder> for Fulfilment {
    type Error = CommandError<Infallible>;

    async fn handle(
        &mut self,
        notification: EventNotification<OrderEvent>,
    ) -> Result<NewEvents<JsonTranscoder>, Self::Error> {
        let mut new = NewEvents::new();
        let OrderEvent::Placed { item, pieces, .. } = notification.event.payload else { return Ok(new) };
        let id = notification.event.originator_id;
        match self.stock.decide(Stock::id(&item), |stock| stock.reserve(id, pieces)).await {
            Ok(reserved) => {
                new.extend(reserved);
                new.extend(self.orders.decide(id, Order::confirm).await?);
            }
            Err(CommandError::Rejected(reason)) => {
                new.extend(self.orders.decide(id, |order| order.reject(reason.to_string())).await?);
            }
            Err(CommandError::Persistence(error)) => return Err(error.into()),
        }
        Ok(new)
    }
}

//! The projection: a table of orders.

use es_persistence::prelude::*;
use serde::{Deserialize, Serialize};

use crate::order::{OrderEvent, OrderStatus};

/// The name of the consumer. To rebuild the table, change this name and that of the table.
pub(crate) const ORDER_LIST: &str = "order-list";

/// A row of the table.
#[derive(Serialize, Deserialize)]
pub(crate) struct OrderRow {
    id: Uuid,
    customer: Uuid,
    item: String,
    pieces: u32,
    status: OrderStatus,
    reason: Option<String>,
}

impl OrderRow {
    /// The query of the newest orders.
    pub(crate) fn newest(limit: u32) -> Sql {
        Sql::new(
            "SELECT id, customer, item, pieces, status, reason FROM order_list ORDER BY position DESC LIMIT $1",
        )
        .bind(limit)
    }
}

pub(crate) struct OrderList;

impl SqlProjection for OrderList {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        let table = |id| {
            format!(
                "CREATE TABLE IF NOT EXISTS order_list (id {id} PRIMARY KEY, position BIGINT NOT NULL, \
                 customer {id} NOT NULL, item TEXT NOT NULL, pieces BIGINT NOT NULL, status TEXT NOT NULL, \
                 reason TEXT)"
            )
        };
        vec![
            Sql::new(table("TEXT")).postgres(table("UUID")),
            Sql::new("CREATE INDEX IF NOT EXISTS order_list_position ON order_list (position)"),
        ]
    }

    fn project(&self, notification: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        let order = notification.event.originator_id;
        let update = |status: &str, reason: Option<String>| {
            Sql::new("UPDATE order_list SET status = $1, reason = $2 WHERE id = $3")
                .bind(status)
                .bind(reason)
                .bind(order)
        };
        Ok(vec![match notification.event.payload {
            OrderEvent::Placed { customer, item, pieces } => {
                Sql::new("INSERT INTO order_list VALUES ($1, $2, $3, $4, $5, 'placed', NULL)")
                    .bind(order)
                    .bind(notification.id)
                    .bind(customer)
                    .bind(item)
                    .bind(pieces)
            }
            OrderEvent::Confirmed => update("confirmed", None),
            OrderEvent::Rejected { reason } => update("rejected", Some(reason)),
        }])
    }
}

//! Tables: their names, what the catalogue says about them, and their creation.

mod create;
mod inspect;
mod name;
pub(crate) mod rows;

use es_core::PersistenceError;
pub(crate) use inspect::{CatalogState, EventsTable, Layout, TrackingTable};
pub(crate) use name::{TableName, quote_literal};
use sqlx::postgres::PgConnection;

use crate::options::NotificationOrdering;

/// The tables that a recorder needs.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableSpec {
    pub(crate) events: Option<TableName>,
    /// Whether the events table must have notification ids.
    pub(crate) notifications: bool,
    pub(crate) tracking: Option<TableName>,
}

/// Inspects the tables, after creating the missing ones where `create` allows it.
///
/// Each step is one message of the simple query protocol that begins and ends its own transaction. A
/// pooler in transaction mode therefore runs it on one server connection. Several messages without a
/// transaction could run on several, and read the answers to other clients' statements.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    spec: &TableSpec,
    create: bool,
    ordering: NotificationOrdering,
) -> Result<CatalogState, PersistenceError> {
    let mut found = inspect::inspect(connection, spec).await?;
    if create {
        let missing = found.missing(spec);
        if !missing.is_empty() {
            for table in missing {
                create::create(connection, table).await?;
            }
            found = inspect::inspect(connection, spec).await?;
        }
    }
    found.check(spec, ordering)
}

//! Notifications by `NOTIFY`, if enabled: other processes need not wait for their next poll.
//!
//! A notification is sent after a commit, in a transaction of its own. `NOTIFY` takes a lock of the whole
//! instance when its transaction commits, and keeps it until the commit is durable. Here that is at once,
//! since a notification need not be durable; and no append waits for it. Commits that follow each other
//! faster than notifications are sent share one.
//!
//! The channel is that of the Python library: the events table's name. The Python library sends no payload;
//! this one sends an id of the datastore, whose own waiting tasks were already woken.

use std::sync::Arc;

use es_core::PersistenceError;
use sqlx::{Postgres, Transaction};

use super::signals::SendPermit;
use crate::{
    connection::{Database, Select},
    fault_hooks::FaultPoint,
    schema::TableName,
};

/// Returns the channel of a table.
pub(super) fn channel(table: &TableName) -> String {
    table.name().replace('.', "_")
}

/// Sends a notification of a table, and another one for what is recorded meanwhile.
pub(crate) async fn send(database: Arc<Database>, mut permit: SendPermit) {
    while permit.take_pending() {
        if let Err(error) = send_one(&database, &permit.table.name).await {
            let table = permit.table.name.quoted();
            tracing::warn!(table, %error, "sending a notification failed: other processes rely on polling");
        }
    }
}

async fn send_one(database: &Database, table: &TableName) -> Result<(), PersistenceError> {
    database.reached(FaultPoint::Notifying).await;
    // The setting applies to this transaction only.
    let mut select = Select::new(
        "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), pg_catalog.pg_notify($1, $2)",
    );
    select.argument(channel(table))?;
    select.argument(database.notify_payload.as_str())?;
    database.fetch(&select.into_query("sending a notification"), |_| Ok(())).await.map(drop)
}

/// Sends a notification in the caller's transaction, since only the caller knows when it commits.
pub(crate) async fn send_in(
    transaction: &mut Transaction<'_, Postgres>,
    table: &TableName,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query("SELECT pg_catalog.pg_notify($1, '')").bind(channel(table)).persistent(false);
    query.execute(&mut **transaction).await.map(drop)
}

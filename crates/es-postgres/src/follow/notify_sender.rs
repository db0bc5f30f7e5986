//! Hints by `NOTIFY`, where they are switched on: that there is something to read in a table, so that
//! those who wait need not wait for the next poll.
//!
//! A hint goes out after a commit, in a transaction of its own. `NOTIFY` takes a lock of the whole
//! instance when its transaction commits, and keeps it until the commit is durable. Here
//! that is at once, for a hint need not be durable; and no append waits for it. Commits that follow each
//! other faster than hints are sent share one.
//!
//! Channels are those of the Python library: the events table's name. It sends no payload; ours is who
//! sends, because a datastore has woken its own before.

use es_core::PersistenceError;
use sqlx::{Postgres, Transaction};

use crate::{
    PostgresDatastore, fault_hooks::FaultPoint, follow::signals::Telling, read::select::Select,
    schema::TableName,
};

/// The channel of a table.
pub(crate) fn channel(table: &TableName) -> String {
    table.name().replace('.', "_")
}

/// Sends a hint that there is something new in a table, and another one for what is recorded meanwhile.
pub(crate) async fn tell(datastore: PostgresDatastore, mut telling: Telling) {
    loop {
        if let Err(error) = send(&datastore, &telling.table.name).await {
            let table = telling.table.name.quoted();
            tracing::warn!(table, %error, "sending a hint failed: who waits for it notices by polling");
        }
        if telling.is_over() {
            return;
        }
    }
}

async fn send(datastore: &PostgresDatastore, table: &TableName) -> Result<(), PersistenceError> {
    datastore.0.options.hooks.reached(FaultPoint::Hinting).await;
    // The setting is the transaction's alone.
    let sql = "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), pg_catalog.pg_notify($1, $2)";
    let mut select = Select::new(sql.to_owned());
    select.argument(channel(table))?;
    select.argument(datastore.0.listening.sender.as_str())?;
    datastore.fetch(&select.into_query("sending a hint"), |_| Ok(())).await.map(drop)
}

/// Sends a hint when the transaction commits: nobody else knows when that is.
pub(crate) async fn send_in(
    transaction: &mut Transaction<'_, Postgres>,
    table: &TableName,
) -> Result<(), sqlx::Error> {
    let sending = sqlx::query("SELECT pg_catalog.pg_notify($1, '')").bind(channel(table)).persistent(false);
    sending.execute(&mut **transaction).await.map(drop)
}

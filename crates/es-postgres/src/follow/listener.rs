//! Listens for notifications, if enabled: on one connection for all tables of a datastore that are polled.
//!
//! The connection is not of the pool. If it is lost, another one is opened, and every table is polled at
//! once, since notifications may have been lost meanwhile.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{sync::Notify, time::timeout};

use super::{
    notify_sender::channel,
    signals::{TableRegistry, WatchedTable},
};
use crate::{
    connection::{Backoff, Database},
    error,
    fault_hooks::FaultPoint,
    task_permit::{TaskPermit, TaskSlot},
};

/// The first and the longest pause between attempts to listen.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The longest time of one attempt to connect: the host to connect to may change meanwhile.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// The longest time that closing the connection may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// The watched tables of a datastore, and the task that listens for their notifications.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) database: Arc<Database>,
    pub(crate) tables: TableRegistry,
    slot: TaskSlot,
    /// Wakes the task after the set of polled tables has changed.
    pub(super) changed: Notify,
}

impl Listener {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        let (tables, slot, changed) = (TableRegistry::default(), TaskSlot::default(), Notify::new());
        Arc::new(Self { database, tables, slot, changed })
    }

    /// Starts listening for as long as a table is polled, or makes the listening task check for new tables.
    pub(super) fn listen(self: &Arc<Self>) {
        match self.slot.acquire() {
            Some(permit) => drop(tokio::spawn(Arc::clone(self).listen_while_polled(permit))),
            None => self.changed.notify_one(),
        }
    }

    async fn listen_while_polled(self: Arc<Self>, mut permit: TaskPermit) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !permit.release_if(|| self.tables.polled().is_empty()) {
            let Err(error) = self.listen_on_connection(&mut backoff).await else { continue };
            if backoff.is_fresh() {
                tracing::warn!(%error, "listening for notifications failed: waiting tasks rely on polling");
            }
            let _ = timeout(backoff.next(), self.changed.notified()).await;
        }
    }

    /// Listens until no table is polled, or the connection is lost, which is an error. Resets the backoff
    /// once connected.
    async fn listen_on_connection(&self, backoff: &mut Backoff) -> Result<(), PersistenceError> {
        let Self { database, tables, changed, .. } = self;
        let (pool, mut listener) = match select(pin!(connect(database)), pin!(changed.notified())).await {
            Either::Left((connected, _)) => connected?,
            Either::Right(_) => return Ok(()),
        };
        backoff.reset();
        let mut channels = Vec::new();
        loop {
            let polled = tables.polled();
            if polled.is_empty() {
                drop(listener);
                // If the termination message does not arrive, the server detects the closed connection by
                // itself.
                let _ = timeout(CLOSE_TIME, pool.close()).await;
                return Ok(());
            }
            for table in &polled {
                let channel = channel(&table.name);
                if !channels.contains(&channel) {
                    listener.listen(&channel).await.map_err(failed)?;
                    database.reached(FaultPoint::Listening).await;
                    channels.push(channel);
                    // Earlier notifications were not received.
                    table.notified.notify_one();
                }
            }
            let received = match select(pin!(listener.try_recv()), pin!(changed.notified())).await {
                Either::Left((received, _)) => received.map_err(failed)?,
                Either::Right(_) => continue,
            };
            let Some(received) = received else {
                let message = "the listening connection was lost";
                return Err(PersistenceError::operational(message).transient());
            };
            if received.payload() != database.notify_payload {
                let is_concerned = |table: &&Arc<WatchedTable>| channel(&table.name) == received.channel();
                polled.iter().filter(is_concerned).for_each(|table| table.notified.notify_one());
            }
        }
    }
}

/// Returns a connection that listens, and the pool that the driver requires, which has this connection alone.
async fn connect(database: &Database) -> Result<(PgPool, PgListener), PersistenceError> {
    let (host, options) = database.connections.preferred_host().await?;
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .max_lifetime(None)
        .idle_timeout(None)
        .acquire_timeout(CONNECT_TIME.min(database.options.connect_timeout))
        .connect_lazy_with(options);
    let listener = PgListener::connect_with(&pool).await;
    let mut listener = listener.map_err(|error| error::from_connecting(host, error))?;
    // The next connection may need another host and another password.
    listener.eager_reconnect(false);
    Ok((pool, listener))
}

fn failed(error: sqlx::Error) -> PersistenceError {
    error::from_statement("listening for notifications", error)
}

//! Listens for notifications, if enabled: on one connection for all tables of a datastore that are polled.
//!
//! The connection is not of the pool. If it is lost, another one is opened, and every table is polled at
//! once, since notifications may have been lost meanwhile.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification, PgPoolOptions},
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

/// The permit to listen for a datastore.
struct ListenPermit {
    listener: Arc<Listener>,
    permit: TaskPermit,
}

impl Listener {
    pub(crate) fn new(database: Arc<Database>) -> Arc<Self> {
        let (tables, slot, changed) = (TableRegistry::default(), TaskSlot::default(), Notify::new());
        Arc::new(Self { database, tables, slot, changed })
    }

    /// Starts listening for as long as a table is polled, or makes the listening task check for new tables.
    pub(super) fn listen(self: &Arc<Self>) {
        match self.slot.acquire() {
            Some(permit) => drop(tokio::spawn(ListenPermit { listener: Arc::clone(self), permit }.run())),
            None => self.changed.notify_one(),
        }
    }
}

impl ListenPermit {
    async fn run(mut self) {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !self.release_if_idle() {
            let Err(error) = self.listen_on_connection(&mut backoff).await else { continue };
            if backoff.is_fresh() {
                tracing::warn!(%error, "listening for notifications failed: waiting tasks rely on polling");
            }
            let _ = timeout(backoff.next(), self.listener.changed.notified()).await;
        }
    }

    /// Releases the permit if no table is polled. Returns whether it is released.
    fn release_if_idle(&mut self) -> bool {
        self.permit.release_if(|| self.listener.tables.polled().is_empty())
    }

    /// Listens until no table is polled, or the connection is lost, which is an error. Resets the backoff
    /// once connected.
    async fn listen_on_connection(&self, backoff: &mut Backoff) -> Result<(), PersistenceError> {
        let Listener { database, tables, changed, .. } = &*self.listener;
        let connecting = ListenConnection::open(database);
        let mut connection = match select(pin!(connecting), pin!(changed.notified())).await {
            Either::Left((connection, _)) => connection?,
            Either::Right(_) => return Ok(()),
        };
        backoff.reset();
        let mut channels = Vec::new();
        loop {
            let polled = tables.polled();
            if polled.is_empty() {
                // If the termination message does not arrive, the server detects the closed connection by
                // itself.
                let _ = timeout(CLOSE_TIME, connection.close()).await;
                return Ok(());
            }
            for table in &polled {
                let channel = channel(&table.name);
                if !channels.contains(&channel) {
                    connection.listen(&channel).await?;
                    database.reached(FaultPoint::Listening).await;
                    channels.push(channel);
                    // Earlier notifications were not received.
                    table.notified.notify_one();
                }
            }
            let received = match select(pin!(connection.receive()), pin!(changed.notified())).await {
                Either::Left((received, _)) => received?,
                Either::Right(_) => continue,
            };
            if received.payload() != database.notify_payload {
                let is_concerned = |table: &&Arc<WatchedTable>| channel(&table.name) == received.channel();
                polled.iter().filter(is_concerned).for_each(|table| table.notified.notify_one());
            }
        }
    }
}

/// A connection that listens.
struct ListenConnection {
    /// The driver requires a pool, which has this connection alone.
    pool: PgPool,
    listener: PgListener,
}

impl ListenConnection {
    async fn open(database: &Database) -> Result<Self, PersistenceError> {
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
        Ok(Self { pool, listener })
    }

    async fn listen(&mut self, channel: &str) -> Result<(), PersistenceError> {
        self.listener.listen(channel).await.map_err(failed)
    }

    async fn receive(&mut self) -> Result<PgNotification, PersistenceError> {
        let received = self.listener.try_recv().await.map_err(failed)?;
        received.ok_or_else(|| PersistenceError::operational("the listening connection was lost").transient())
    }

    async fn close(self) {
        drop(self.listener);
        self.pool.close().await;
    }
}

fn failed(error: sqlx::Error) -> PersistenceError {
    error::from_statement("listening for notifications", error)
}

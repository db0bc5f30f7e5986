//! Listening for hints, where they are switched on: on one connection for all tables of a datastore,
//! while somebody follows one.
//!
//! The connection is none of the pool's. When it is lost, another one is made, and every table is
//! looked at, since hints may have been lost meanwhile.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use es_core::PersistenceError;
use futures_util::future::{Either, select};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgNotification, PgPoolOptions},
};
use tokio::{sync::Notify, time::timeout};
use uuid::Uuid;

use crate::{
    PostgresDatastore, error,
    fault_hooks::FaultPoint,
    follow::{notify_sender::channel, signals::Followed},
};

/// The pauses between attempts to listen: doubled, from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long one attempt to connect takes at most: where to connect to may change meanwhile.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long the farewell to the server may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The listening of a datastore.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Who sends the datastore's own hints, which it need not hear.
    pub(crate) sender: String,
    /// Whether a task listens.
    is_running: Mutex<bool>,
    /// Tells that task that other tables are followed now.
    pub(crate) changed: Notify,
}

impl Default for Listening {
    fn default() -> Self {
        Self {
            sender: Uuid::new_v4().simple().to_string(),
            is_running: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Listening {
    fn is_running(&self) -> MutexGuard<'_, bool> {
        // Nothing panics while it is held.
        self.is_running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens, on one connection for all tables of the datastore, for as long as somebody follows one.
pub(crate) fn listen(datastore: &PostgresDatastore) {
    let listening = &datastore.0.listening;
    if std::mem::replace(&mut *listening.is_running(), true) {
        listening.changed.notify_one();
        return;
    }
    let mut turn = Turn { datastore: datastore.clone(), is_over: false };
    tokio::spawn(async move {
        let (mut pause, longest_pause) = PAUSES;
        while !turn.is_over() {
            let Err(error) = listen_on_connection(&turn.datastore, &mut pause).await else { continue };
            if pause == PAUSES.0 {
                tracing::warn!(%error, "listening for hints failed: who waits for them notices by polling");
            }
            // Either there is another table to listen for, or it is time to try again.
            let _ = timeout(pause, turn.datastore.0.listening.changed.notified()).await;
            pause = longest_pause.min(pause * 2);
        }
    });
}

/// Listens until there is nothing to listen for, or the connection is lost, which is an error. Once
/// connected, the pause after that is the first again.
async fn listen_on_connection(
    datastore: &PostgresDatastore,
    pause: &mut Duration,
) -> Result<(), PersistenceError> {
    let listening = &datastore.0.listening;
    let connecting = Listener::connect(datastore);
    let mut listener = match select(pin!(connecting), pin!(listening.changed.notified())).await {
        Either::Left((listener, _)) => listener?,
        Either::Right(_) => return Ok(()),
    };
    *pause = PAUSES.0;
    let mut channels = Vec::new();
    loop {
        let tables = datastore.0.shared_tables.polled();
        if tables.is_empty() {
            // The server notices by itself when the farewell does not reach it.
            let _ = timeout(FAREWELL, listener.close()).await;
            return Ok(());
        }
        for table in &tables {
            let channel = channel(&table.name);
            if !channels.contains(&channel) {
                listener.listen(&channel).await?;
                datastore.0.options.hooks.reached(FaultPoint::Listening).await;
                channels.push(channel);
                // What was told before was not heard.
                table.hint.notify_one();
            }
        }
        let heard = match select(pin!(listener.hear()), pin!(listening.changed.notified())).await {
            Either::Left((heard, _)) => heard?,
            Either::Right(_) => continue,
        };
        if heard.payload() != listening.sender {
            let told = |table: &&Arc<Followed>| channel(&table.name) == heard.channel();
            tables.iter().filter(told).for_each(|table| table.hint.notify_one());
        }
    }
}

/// A connection that listens.
struct Listener {
    /// Of this connection alone, as the driver wants it.
    pool: PgPool,
    listener: PgListener,
}

impl Listener {
    async fn connect(datastore: &PostgresDatastore) -> Result<Self, PersistenceError> {
        let (host, options) = datastore.0.connections.preferred().await?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .max_lifetime(None)
            .idle_timeout(None)
            .acquire_timeout(CONNECT_TIME.min(datastore.0.options.connect_timeout))
            .connect_lazy_with(options);
        let listener = PgListener::connect_with(&pool).await;
        let mut listener = listener.map_err(|error| error::from_connecting(host, error))?;
        // Where to connect to may be another host then, with another password.
        listener.eager_reconnect(false);
        Ok(Self { pool, listener })
    }

    async fn listen(&mut self, channel: &str) -> Result<(), PersistenceError> {
        self.listener.listen(channel).await.map_err(failed)
    }

    /// The next hint.
    async fn hear(&mut self) -> Result<PgNotification, PersistenceError> {
        let heard = self.listener.try_recv().await.map_err(failed)?;
        heard.ok_or_else(|| PersistenceError::operational("the connection that listens was lost").transient())
    }

    async fn close(self) {
        drop(self.listener);
        self.pool.close().await;
    }
}

fn failed(error: sqlx::Error) -> PersistenceError {
    error::from_statement("listening for hints", error)
}

/// The right to listen for a datastore; there is one at a time.
struct Turn {
    datastore: PostgresDatastore,
    is_over: bool,
}

impl Turn {
    /// Gives the right back if nobody follows a table any more; whoever does so from now on takes it.
    fn is_over(&mut self) -> bool {
        if self.is_over {
            return true;
        }
        let mut is_running = self.datastore.0.listening.is_running();
        self.is_over = self.datastore.0.shared_tables.polled().is_empty();
        *is_running = !self.is_over;
        self.is_over
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The task did not end by itself: its runtime was shut down.
        if !self.is_over {
            *self.datastore.0.listening.is_running() = false;
        }
    }
}

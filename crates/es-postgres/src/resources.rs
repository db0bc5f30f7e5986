//! The resources that the recorders of a datastore share: connections, signals, and the queues to empty on
//! close.

use std::sync::{Arc, Weak};

use es_core::PersistenceError;
use futures_util::future::join_all;
use parking_lot::Mutex;

use crate::{connection::Database, error, follow::Listener, runtime, write::Queue};

#[derive(Debug)]
pub(crate) struct Resources {
    pub(crate) database: Arc<Database>,
    /// The listener, which also has the tables whose signals the recorders share.
    pub(crate) listener: Arc<Listener>,
    queues: Mutex<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    is_closed: bool,
    open: Vec<Weak<Queue>>,
}

impl Resources {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let listener = Listener::new(Arc::clone(&database));
        Self { database, listener, queues: Mutex::default() }
    }

    /// Starts a queue and registers it, unless the datastore is closed.
    pub(crate) fn add_queue(
        &self,
        start: impl FnOnce() -> Arc<Queue>,
    ) -> Result<Arc<Queue>, PersistenceError> {
        let mut queues = self.queues.lock();
        if queues.is_closed {
            return Err(error::datastore_closed());
        }
        let queue = start();
        queues.open.retain(|queue| queue.strong_count() > 0);
        queues.open.push(Arc::downgrade(&queue));
        Ok(queue)
    }

    pub(crate) fn check_open(&self) -> Result<(), PersistenceError> {
        if self.queues.lock().is_closed { Err(error::datastore_closed()) } else { Ok(()) }
    }

    /// Waits for accepted writes, then closes the connections.
    ///
    /// # Errors
    /// Outside of a tokio runtime.
    pub(crate) async fn close(&self) -> Result<(), PersistenceError> {
        runtime::current()?;
        // First, so that subscriptions end in order, and not with the error of a closed recorder.
        self.listener.tables.close();
        let queues: Vec<_> = {
            let mut queues = self.queues.lock();
            queues.is_closed = true;
            queues.open.iter().filter_map(Weak::upgrade).collect()
        };
        join_all(queues.iter().map(|queue| queue.close())).await;
        self.listener.tables.wait_sent().await;
        self.database.close().await;
        Ok(())
    }
}

//! The threads of a datastore, and an asynchronous wait for their end.

use std::thread;

use es_core::PersistenceError;
use tokio::sync::watch;

/// Threads whose end can be awaited.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    /// Each thread holds a receiver until it ends.
    running: watch::Sender<()>,
}

impl Threads {
    pub(crate) fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), PersistenceError> {
        let running = self.running.subscribe();
        let work_then_signal = move || {
            work();
            drop(running);
        };
        thread::Builder::new().name(name.to_owned()).spawn(work_then_signal).map(drop).map_err(|error| {
            PersistenceError::operational(format!("thread {name:?} cannot be started")).with_source(error)
        })
    }

    /// Waits until all threads have ended.
    pub(crate) async fn ended(&self) {
        self.running.closed().await;
    }
}

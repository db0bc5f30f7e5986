//! The threads of a datastore, and waiting for their end without blocking.

use std::thread;

use es_core::PersistenceError;
use tokio::sync::watch;

/// Threads that can be awaited together.
#[derive(Debug)]
pub(crate) struct Threads {
    /// Each thread holds a sender; when all are gone, all threads have ended.
    running: watch::Sender<()>,
    ended: watch::Receiver<()>,
}

/// Resolves when threads have ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended(watch::Receiver<()>);

impl Threads {
    pub(crate) fn new() -> Self {
        let (running, ended) = watch::channel(());
        Self { running, ended }
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), PersistenceError> {
        let running = self.running.clone();
        let work_then_tell = move || {
            work();
            drop(running);
        };
        thread::Builder::new().name(name.to_owned()).spawn(work_then_tell).map(drop).map_err(|error| {
            PersistenceError::operational(format!("thread {name:?} cannot be started")).with_source(error)
        })
    }

    /// No further thread is started.
    pub(crate) fn ended(self) -> Ended {
        Ended(self.ended)
    }
}

impl Ended {
    pub(crate) async fn wait(mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

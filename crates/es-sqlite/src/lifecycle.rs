//! The end of a recorder: its signals, and the writes that it has accepted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use es_core::{PersistenceError, Signal};
use tokio::sync::Notify;

use crate::follow::Signals;

/// The state that a recorder shares with its clones and its accepted writes.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// Closed with the recorder.
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    pending: AtomicUsize,
    /// Notified when a closed recorder has no pending writes.
    is_done: Notify,
}

/// A write that was accepted and is not answered yet.
#[derive(Debug)]
pub(crate) struct PendingWrite(Arc<Lifecycle>);

impl Lifecycle {
    pub(crate) fn new(signals: &Signals) -> Self {
        Self {
            commits: signals.commits.child(),
            positions: signals.positions.child(),
            pending: AtomicUsize::new(0),
            is_done: Notify::new(),
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), PersistenceError> {
        if self.commits.is_closed() {
            return Err(PersistenceError::interface("the recorder is closed"));
        }
        Ok(())
    }

    /// Accepts a write, unless the recorder is closed.
    pub(crate) fn accept(self: &Arc<Self>) -> Result<PendingWrite, PersistenceError> {
        // Before the check: either it fails, or `close` waits for the write.
        self.pending.fetch_add(1, Ordering::SeqCst);
        let pending = PendingWrite(Arc::clone(self));
        self.check_open()?;
        Ok(pending)
    }

    /// Ends subscriptions and waits, and accepts no more writes.
    pub(crate) fn close(&self) {
        self.commits.close();
        self.positions.close();
    }

    /// Waits until the accepted writes of a closed recorder are answered.
    pub(crate) async fn answered(&self) {
        loop {
            // Before the check, so that the end of the last write in between is not missed.
            let is_done = self.is_done.notified();
            if self.pending.load(Ordering::SeqCst) == 0 {
                return;
            }
            is_done.await;
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        if self.0.pending.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.commits.is_closed() {
            self.0.is_done.notify_waiters();
        }
    }
}

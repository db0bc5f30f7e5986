//! The writer thread: all work on the writing connection except for inline commits and inline reads.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    checkpoint::{self, Checkpointer},
    committer::{Command, Committer, SharedCommitter},
    queue::Queue,
};
use crate::follow::{CommitPoller, Signals};

/// The state of the writer thread.
pub(crate) struct Worker {
    pub(crate) committer: SharedCommitter,
    queue: Arc<Queue<Command>>,
    /// Disconnected when the reader threads have ended.
    readers_running: mpsc::Receiver<()>,
    checkpointer: Option<Checkpointer>,
    signals: Signals,
    poller: CommitPoller,
}

impl Worker {
    pub(crate) fn new(
        committer: Committer,
        readers_running: mpsc::Receiver<()>,
        poll_interval: Duration,
    ) -> Self {
        let connection = committer.writing.connection();
        Self {
            queue: Arc::clone(&committer.queue),
            readers_running,
            checkpointer: Checkpointer::of(connection),
            signals: committer.signals.clone(),
            poller: CommitPoller::new(connection, poll_interval),
            committer: Arc::new(Mutex::new(Some(committer))),
        }
    }

    /// Works until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.committer);
        loop {
            let is_open = self.queue.wait(self.poller.due());
            let mut committer = shared.lock();
            let Some(committer) = committer.as_mut() else { return };
            self.poller.poll(committer.writing.connection(), &self.signals);
            match self.queue.pop() {
                Some(command) => self.handle(command, committer),
                // No caller holds the committer now, so that none can put an item back.
                None if !is_open => return,
                // A caller has committed it inline.
                None => {}
            }
        }
    }

    fn handle(&mut self, command: Command, committer: &mut Committer) {
        match command {
            Command::Append(request) => committer.write(request, committer.limits),
            Command::Transact(transact) => transact(committer),
            Command::Run(job) => return job(&mut committer.writing.session),
            Command::StartPolling => return self.poller.start(),
            Command::Checkpoint => return self.checkpoint(committer),
        }
        // After the replies: only later requests wait for it.
        if checkpoint::needs_checkpoint() {
            self.checkpoint(committer);
        }
    }

    fn checkpoint(&mut self, committer: &Committer) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.checkpoint(committer.writing.connection(), committer.writing.lock_timeout);
        }
    }
}

/// If the thread ends, for any reason, no caller waits forever.
impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.close_and_drain();
        self.signals.close();
        // The last connection copies the log into the database and deletes it, but not if two connections are
        // closed at the same moment: each blocks the other.
        while self.readers_running.recv().is_ok() {}
        drop(self.committer.lock().take());
    }
}

//! The thread that does what waits for the writing connection, but for what callers do themselves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use crate::{
    SqliteOptions,
    follow::{poller::Watch, signals::Signals},
    write::{
        checkpoint::{self, Log},
        committer::{Command, Committer},
        queue::{Queue, Woken},
    },
};

/// The committer of a datastore, until that is closed.
pub(crate) type SharedCommitter = Arc<Mutex<Option<Committer>>>;

/// The writer thread's work.
pub(crate) struct Writer {
    committer: SharedCommitter,
    queue: Arc<Queue<Command>>,
    /// Ends when the reader threads have.
    readers_running: mpsc::Receiver<()>,
    lock_timeout: Duration,
    log: Option<Log>,
    signals: Signals,
    watch: Watch,
}

impl Writer {
    pub(crate) fn new(
        committer: Committer,
        queue: Arc<Queue<Command>>,
        readers_running: mpsc::Receiver<()>,
        signals: Signals,
        SqliteOptions { lock_timeout, poll_interval, .. }: &SqliteOptions,
    ) -> Self {
        let log = Log::of(committer.writing.connection());
        let watch = Watch::new(committer.writing.connection(), *poll_interval);
        let committer = Arc::new(Mutex::new(Some(committer)));
        Self { committer, queue, readers_running, lock_timeout: *lock_timeout, log, signals, watch }
    }

    /// What the callers share with this thread.
    pub(crate) fn committer(&self) -> SharedCommitter {
        Arc::clone(&self.committer)
    }

    /// Works until the queue is closed, and everything accepted is done.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.committer);
        loop {
            let woken = self.queue.wait(self.watch.due());
            let mut committer = lock(&shared);
            let Some(committer) = committer.as_mut() else { return };
            self.watch.look(committer.writing.connection(), &self.signals);
            match self.queue.pop() {
                Some(command) => self.handle(command, committer),
                // A caller who had taken something may have put it back; none has the committer now.
                None if woken == Woken::Closing => return,
                // A caller has done it.
                None => {}
            }
        }
    }

    fn handle(&mut self, command: Command, committer: &mut Committer) {
        match command {
            Command::Append(request) => committer.write(request),
            Command::Project(work) => committer.project(work),
            Command::Run(job) => return job(&mut committer.writing.session),
            Command::Watch => return self.watch.start(),
            Command::TidyLog => return self.tidy_log(committer),
        }
        // After the replies: nobody waits for it but who comes next.
        if checkpoint::was_left_long() {
            self.tidy_log(committer);
        }
    }

    fn tidy_log(&mut self, committer: &Committer) {
        if let Some(log) = &mut self.log {
            log.tidy(committer.writing.connection(), self.lock_timeout);
        }
    }
}

/// However the thread ends, nobody waits for it in vain.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.abandon();
        self.signals.close();
        // SQLite copies the log into the database and deletes it with the last connection, but not when two
        // are closed at the same moment: each is in the way of the other.
        while self.readers_running.recv().is_ok() {}
        drop(lock(&self.committer).take());
    }
}

/// What a thread that panicked has left open, the next transaction rolls back.
fn lock(committer: &Mutex<Option<Committer>>) -> MutexGuard<'_, Option<Committer>> {
    committer.lock().unwrap_or_else(PoisonError::into_inner)
}

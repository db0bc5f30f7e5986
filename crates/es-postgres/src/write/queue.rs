//! The queue of a recorder and the tasks that commit what waits in it.
//!
//! Requests that wait are committed as one group, because the lock of an append is held until its commit is
//! durable, and one flush of the disk then serves them all. An idle writer commits a request at once.

use std::{collections::VecDeque, sync::Arc};

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot, watch};

use super::{
    committer::Committer,
    group::Group,
    request::{Request, check_events},
};
use crate::{
    error,
    limits::{GroupLimits, queued_size},
    options::PostgresOptions,
};

/// The queue of a recorder. When it is dropped, the writers commit the accepted requests, and end.
#[derive(Debug)]
pub(crate) struct Queue {
    senders: Mutex<Option<Senders>>,
    budget: Arc<Semaphore>,
    size: u32,
    /// Closed when the last writer has ended.
    writers: watch::Receiver<()>,
}

/// The channels to the writers.
#[derive(Debug)]
struct Senders {
    events: mpsc::UnboundedSender<Request>,
    /// For requests with a position. One writer receives them, so that positions do not overtake each other.
    positions: mpsc::UnboundedSender<Request>,
}

impl Queue {
    /// Starts a queue and its writers. If there are several, positions have one more of their own.
    pub(crate) fn start(committer: Committer, options: &PostgresOptions, writers: usize) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let mut senders = Senders { positions: events.clone(), events };
        let receiver = Arc::new(AsyncMutex::new(receiver));
        let mut receivers = vec![receiver; writers];
        if writers > 1 {
            let (positions, receiver) = mpsc::unbounded_channel();
            senders.positions = positions;
            receivers.push(Arc::new(AsyncMutex::new(receiver)));
        }
        let (alive, ended) = watch::channel(());
        let (committer, alive) = (Arc::new(committer), Arc::new(alive));
        for receiver in receivers {
            let writer = Writer {
                committer: Arc::clone(&committer),
                receiver,
                limits: options.group,
                deferred: VecDeque::new(),
                alive: Arc::clone(&alive),
            };
            tokio::spawn(writer.run());
        }
        Self {
            senders: Mutex::new(Some(senders)),
            budget: Arc::new(Semaphore::new(options.queue_bytes.get() as usize)),
            size: options.queue_bytes.get(),
            writers: ended,
        }
    }

    /// Waits for budget in the queue, and then for the result.
    pub(crate) async fn append(
        &self,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Result<Vec<i64>, PersistenceError> {
        if self.is_closed() {
            return Err(error::closed());
        }
        if events.is_empty() && tracking.is_none() {
            return Ok(Vec::new());
        }
        check_events(&events)?;
        // A request larger than the queue waits until it is alone.
        let size = u32::try_from(queued_size(&events)).unwrap_or(u32::MAX).min(self.size);
        let permit = Arc::clone(&self.budget).acquire_many_owned(size).await.map_err(|_| error::closed())?;
        let (reply, answer) = oneshot::channel();
        self.send(Request { events, tracking, reply, _permit: permit })?;
        answer.await.unwrap_or_else(|_| {
            Err(PersistenceError::new(
                ErrorKind::OutcomeUnknown,
                "the writer ended before it answered: its runtime was shut down",
            ))
        })
    }

    /// Accepts no more requests, and waits until the accepted ones are answered.
    pub(crate) async fn close(&self) {
        drop(self.senders.lock().take());
        self.budget.close();
        let mut writers = self.writers.clone();
        // No value is ever sent: this ends with an error, when the last writer has ended.
        while writers.changed().await.is_ok() {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.senders.lock().is_none()
    }

    fn send(&self, request: Request) -> Result<(), PersistenceError> {
        let senders = self.senders.lock();
        let senders = senders.as_ref().ok_or_else(error::closed)?;
        let sender = if request.tracking.is_some() { &senders.positions } else { &senders.events };
        sender.send(request).map_err(|_| {
            PersistenceError::interface("the recorder's writer has ended: its runtime was shut down")
        })
    }
}

/// A task that commits groups.
struct Writer {
    committer: Arc<Committer>,
    receiver: Arc<AsyncMutex<mpsc::UnboundedReceiver<Request>>>,
    limits: GroupLimits,
    /// Requests that conflict with an earlier group.
    deferred: VecDeque<Request>,
    alive: Arc<watch::Sender<()>>,
}

impl Writer {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            let mut candidates = vec![first];
            self.take_waiting(&mut candidates);
            let candidates: Vec<Request> =
                candidates.into_iter().filter_map(|request| self.committer.unless_locked(request)).collect();
            if candidates.is_empty() {
                continue;
            }
            let group = Group::form(candidates);
            let several = group.requests.len() > 1;
            let has_events = group.requests.iter().any(|request| !request.events.is_empty());
            let answers = self.committer.commit(group.requests, &self.alive).await;
            if has_events && answers.iter().any(Result::is_ok) {
                self.committer.send_notify();
            }
            // The last one first, so that they keep their order, before the waiting requests.
            for deferred in group.deferred.into_iter().rev() {
                match deferred.inherited_conflict(&answers) {
                    Some(conflict) => deferred.request.answer(Err(conflict.into())),
                    None => self.deferred.push_front(deferred.request),
                }
            }
            if several {
                // The callers that were just answered often send the next request at once. Yielding gets all
                // of them into the next group (a fifth more events, `insert, 64 tasks, 1 per commit`).
                tokio::task::yield_now().await;
            }
        }
    }

    /// Returns the next request; none when the queue is closed and empty.
    async fn next(&mut self) -> Option<Request> {
        match self.deferred.pop_front() {
            Some(request) => Some(request),
            None => self.receiver.lock().await.recv().await,
        }
    }

    /// Adds waiting requests, within the limits of a group.
    fn take_waiting(&mut self, candidates: &mut Vec<Request>) {
        let (mut rows, mut bytes) = candidates.first().map_or((0, 0), Request::size);
        // A writer that waits for a request holds the receiver: then there is none.
        let mut receiver = self.receiver.try_lock();
        while rows < self.limits.rows && bytes < self.limits.bytes {
            let waiting = self.deferred.pop_front().or_else(|| receiver.as_mut().ok()?.try_recv().ok());
            let Some(request) = waiting else { return };
            let (more_rows, more_bytes) = request.size();
            (rows, bytes) = (rows + more_rows, bytes + more_bytes);
            if rows > self.limits.rows || bytes > self.limits.bytes {
                // It exceeds the limits: it starts the next group.
                self.deferred.push_front(request);
                return;
            }
            candidates.push(request);
        }
    }
}

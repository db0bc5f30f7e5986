//! Commits groups; after a failure, retries their requests one by one or recovers their outcomes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering as Atomic},
    },
    time::Duration,
};

use es_core::{ErrorKind, PersistenceError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    append::{AppendError, Scope},
    appender_cache::AppenderCache,
    group::Answer,
    outcome::Outcome,
    recovery::{self, Unacknowledged},
    request::{Batch, Request},
};
use crate::{
    connection::Backoff,
    error::ErrorClass,
    fault_hooks::FaultPoint,
    follow::{self, Signals},
};

/// The time in which a request is retried that conflicts with concurrent transactions. Each attempt sees what
/// the one before could not see yet.
const CONTENTION_TIME: Duration = Duration::from_secs(2);

/// The pauses while a lock is polled: it is mostly held for a few milliseconds.
const LOCK_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// The number of unique violations in a row that are retried.
const MOST_VIOLATIONS: usize = 3;

/// Commits the requests of one recorder.
#[derive(Debug)]
pub(crate) struct Committer {
    appender: Arc<AppenderCache>,
    signals: Arc<Signals>,
    /// The highest notification id that was acknowledged.
    known_id: AtomicI64,
    /// The applications whose positions are locked, with the requests that wait behind the one that is
    /// retried.
    locked: Mutex<HashMap<String, VecDeque<Request>>>,
}

impl Committer {
    pub(crate) fn new(appender: Arc<AppenderCache>, signals: Arc<Signals>) -> Self {
        Self { appender, signals, known_id: AtomicI64::new(0), locked: Mutex::default() }
    }

    /// Commits the requests, which do not conflict with each other, and answers each. Returns the results for
    /// the requests that were deferred for their sake.
    ///
    /// A request whose position is locked by another transaction is retried by a task of its own, so that it
    /// does not delay the others; `alive` is dropped with it.
    pub(super) async fn commit(
        self: &Arc<Self>,
        requests: Vec<Request>,
        alive: &Arc<watch::Sender<()>>,
    ) -> Vec<Answer> {
        self.reached(FaultPoint::GroupFormed).await;
        let batches: Vec<Batch<'_>> = requests.iter().map(Request::batch).collect();
        let known_id = self.known_id.load(Atomic::Relaxed);
        let mut appended = self.appender.append(&batches, Scope::Own).await;
        if appended.as_ref().is_err_and(|failed| failed.class == ErrorClass::Contended) {
            // The rival has committed. The second attempt sees it and refuses the requests that it concerns,
            // so the others need not be sent one by one (`PostgreSQL insert, 32 tasks on 4 hot aggregates`).
            appended = self.appender.append(&batches, Scope::Own).await;
        }
        self.reached(FaultPoint::GroupAnswered).await;
        match appended {
            Ok(outcomes) => requests
                .into_iter()
                .zip(outcomes)
                .map(|(request, outcome)| match outcome {
                    Outcome::Recorded(ids) => self.answer(request, Ok(ids)),
                    Outcome::Refused(refusal) => self.answer(request, Err(refusal)),
                    Outcome::Locked | Outcome::FirstPosition | Outcome::NotInserted => {
                        self.retry(request, alive);
                        Err(None)
                    }
                })
                .collect(),
            Err(failed) => self.after_failure(known_id, requests, &failed).await,
        }
    }

    /// Sends a notification of the commit to other processes, if that is enabled.
    pub(super) fn send_notify(&self) {
        let database = &self.appender.database;
        if database.options.notify
            && let Some(permit) = self.signals.start_sending()
        {
            tokio::spawn(follow::send(Arc::clone(database), permit));
        }
    }

    /// Retries a request by the task of its application. A request behind another one of the same application
    /// waits for it, since positions must not overtake each other.
    fn retry(self: &Arc<Self>, request: Request, alive: &Arc<watch::Sender<()>>) {
        let Some(application) = request.application_name().map(str::to_owned) else { return };
        let mut locked = self.locked.lock();
        if let Some(waiting) = locked.get_mut(&application) {
            return waiting.push_back(request);
        }
        locked.insert(application.clone(), VecDeque::new());
        let (committer, alive) = (Arc::clone(self), Arc::clone(alive));
        tokio::spawn(async move {
            let mut next = Some(request);
            while let Some(request) = next {
                committer.reached(FaultPoint::PositionLocked).await;
                let known_id = committer.known_id.load(Atomic::Relaxed);
                let result = committer.commit_alone(known_id, request.batch()).await;
                let has_events = !request.events.is_empty();
                if committer.answer(request, result.map_err(Into::into)).is_ok() && has_events {
                    committer.send_notify();
                }
                next = committer.next_locked(&application);
            }
            drop(alive);
        });
    }

    /// Returns the next request that waits behind a locked position. If there is none, the application is not
    /// locked any more.
    fn next_locked(&self, application: &str) -> Option<Request> {
        let mut locked = self.locked.lock();
        let next = locked.get_mut(application).and_then(VecDeque::pop_front);
        if next.is_none() {
            locked.remove(application);
        }
        next
    }

    /// Returns a request, unless it has to wait behind another one whose position is locked.
    pub(super) fn unless_locked(&self, request: Request) -> Option<Request> {
        let Some(application) = request.application_name() else { return Some(request) };
        let mut locked = self.locked.lock();
        let Some(waiting) = locked.get_mut(application) else { return Some(request) };
        waiting.push_back(request);
        None
    }

    /// Handles each request of a group that failed: nothing was written, or the connection was lost. If the
    /// server does not come back for one request, the others do not wait for it again.
    async fn after_failure(
        &self,
        known_id: i64,
        requests: Vec<Request>,
        failed: &AppendError,
    ) -> Vec<Answer> {
        let is_alone = requests.len() == 1;
        let mut unavailable: Option<PersistenceError> = None;
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            let batch = request.batch();
            let result = match (&unavailable, failed.class) {
                (Some(error), _) => Err(Unacknowledged::Server(error.clone())),
                (None, ErrorClass::Lost) => recovery::recover_outcome(&self.appender, batch, known_id).await,
                (None, ErrorClass::Contended) => self.commit_alone(known_id, batch).await,
                // An error of one request must not fail another.
                (None, ErrorClass::Refused) if !is_alone => self.commit_alone(known_id, batch).await,
                (None, ErrorClass::Unavailable | ErrorClass::Refused) => {
                    Err(Unacknowledged::Request(failed.error.clone()))
                }
            };
            if let (None, Err(Unacknowledged::Server(error))) = (&unavailable, &result) {
                // Requests that are committed one by one were not sent again.
                let is_unknown = failed.class == ErrorClass::Lost;
                unavailable = Some(if is_unknown { error.clone() } else { not_sent(error) });
            }
            answers.push(self.answer(request, result.map_err(Into::into)));
        }
        answers
    }

    async fn commit_alone(&self, known_id: i64, batch: Batch<'_>) -> Result<Vec<i64>, Unacknowledged> {
        let mut backoff = Backoff::within(CONTENTION_TIME);
        // The same time as other waits for a lock.
        let lock_timeout = self.appender.database.options.lock_timeout;
        let lock_timeout = (!lock_timeout.is_zero()).then_some(lock_timeout);
        let mut lock_backoff = Backoff::new(LOCK_PAUSES.0, LOCK_PAUSES.1).until(lock_timeout);
        let mut violations = 0;
        let error = loop {
            let failed = match self.appender.append_one(batch).await {
                Ok(Outcome::Recorded(ids)) => return Ok(ids),
                Ok(Outcome::Refused(refusal)) => break refusal,
                Ok(Outcome::Locked) if lock_backoff.wait().await => continue,
                Ok(Outcome::Locked) => break position_locked(),
                Ok(Outcome::FirstPosition | Outcome::NotInserted) if backoff.wait().await => continue,
                Ok(Outcome::FirstPosition | Outcome::NotInserted) => break position_skipped(),
                Err(failed) => failed,
            };
            violations += usize::from(failed.is_unique_violation);
            match failed.class {
                ErrorClass::Lost => return recovery::recover_outcome(&self.appender, batch, known_id).await,
                // A version that is taken stays taken, and the next attempt reports it. What repeats is a
                // unique index of the user's, or a trigger.
                ErrorClass::Contended if violations <= MOST_VIOLATIONS && backoff.wait().await => {}
                ErrorClass::Unavailable => return Err(Unacknowledged::Server(failed.error)),
                ErrorClass::Contended | ErrorClass::Refused => break failed.error,
            }
        };
        Err(Unacknowledged::Request(error))
    }

    /// Answers a request, after waking the tasks that wait for it.
    fn answer(&self, request: Request, result: Result<Vec<i64>, PersistenceError>) -> Answer {
        let answer = result.as_ref().map(|_| ()).map_err(|error| error.conflict().cloned());
        if let Ok(ids) = &result {
            if let Some(id) = ids.last() {
                self.known_id.fetch_max(*id, Atomic::Relaxed);
            }
            self.signals.wake(&request.events, ids.last().copied(), request.tracking.as_ref());
        }
        request.answer(result);
        answer
    }

    async fn reached(&self, point: FaultPoint) {
        self.appender.database.reached(point).await;
    }
}

/// The error for requests behind one whose server became unavailable.
fn not_sent(error: &PersistenceError) -> PersistenceError {
    if !error.is_outcome_unknown() {
        return error.clone();
    }
    let message = "nothing was written: the server became unavailable before the request was sent again";
    PersistenceError::operational(message).with_source(error.clone()).transient()
}

fn position_locked() -> PersistenceError {
    let message =
        "the tracking position stayed locked by another transaction for longer than the lock timeout";
    PersistenceError::operational(message).transient()
}

fn position_skipped() -> PersistenceError {
    let message = "the tracking position was not inserted, and nothing was recorded: a trigger or a rule of the \
                   tracking table skips rows";
    PersistenceError::new(ErrorKind::Integrity, message)
}

//! Commits groups; after a failure, retries their requests one by one or recovers their outcomes.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering as Atomic},
    },
    time::Duration,
};

use es_core::{ErrorKind, PersistenceError};
use tokio::sync::watch;

use super::{
    append::{AppendError, Outcome, Scope},
    appender_cache::AppenderCache,
    group::Answer,
    request::{Batch, Request},
};
use crate::{
    PostgresDatastore,
    connection::{backoff::Retries, pool::Caller},
    error::Verdict,
    fault_hooks::FaultPoint,
    follow::signals::Signals,
};

/// How long a request is retried that meets other transactions. Each attempt sees what the one before could
/// not see yet.
const CONTENTION_TIME: Duration = Duration::from_secs(2);

/// How many unique violations in a row are retried.
const MOST_VIOLATIONS: usize = 3;

/// Commits the requests of one recorder.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) datastore: PostgresDatastore,
    pub(super) appender: Arc<AppenderCache>,
    signals: Arc<Signals>,
    /// The highest notification id that was acknowledged.
    known_id: AtomicI64,
    /// The applications whose positions are locked, with the requests that wait behind the one that is retried.
    locked: Mutex<HashMap<String, VecDeque<Request>>>,
}

/// Why a request was not recorded, or is not known to be.
pub(super) enum Unrecorded {
    Refused(PersistenceError),
    Failed(PersistenceError),
    /// The server is unavailable, and so it is for the requests that come after.
    Unavailable(PersistenceError),
}

impl Committer {
    pub(crate) fn new(
        datastore: PostgresDatastore,
        appender: Arc<AppenderCache>,
        signals: Arc<Signals>,
    ) -> Self {
        Self { datastore, appender, signals, known_id: AtomicI64::new(0), locked: Mutex::default() }
    }

    /// Commits the requests, which do not conflict with each other, and answers each. Returns the results for
    /// the requests that were deferred for their sake.
    ///
    /// A request whose position is locked by another transaction is retried by a task of its own, so that it does
    /// not delay the others; `alive` is dropped with it.
    pub(super) async fn commit(
        self: &Arc<Self>,
        requests: Vec<Request>,
        alive: &Arc<watch::Sender<()>>,
    ) -> Vec<Answer> {
        self.reached(FaultPoint::GroupFormed).await;
        let batches: Vec<Batch<'_>> = requests.iter().map(Request::batch).collect();
        let known_id = self.known_id.load(Atomic::Relaxed);
        let mut appended = self.append(&batches, Scope::Own).await;
        if appended.as_ref().is_err_and(|failed| failed.verdict == Verdict::Contended) {
            // The rival has committed. The second attempt sees it and refuses the requests that it concerns, so
            // the others need not be sent one by one (`PostgreSQL insert, 32 tasks on 4 hot aggregates`).
            appended = self.append(&batches, Scope::Own).await;
        }
        self.reached(FaultPoint::GroupAnswered).await;
        match appended {
            Ok(outcomes) => {
                let mut answers = Vec::with_capacity(requests.len());
                for (request, outcome) in requests.into_iter().zip(outcomes) {
                    answers.push(match outcome {
                        Outcome::Recorded(ids) => self.answer(request, Ok(ids)),
                        Outcome::Refused(refusal) => self.answer(request, Err(Unrecorded::Refused(refusal))),
                        Outcome::Locked | Outcome::FirstPosition | Outcome::NotInserted => {
                            self.retry(request, alive);
                            Err(None)
                        }
                    });
                }
                answers
            }
            Err(failed) => self.after_failure(known_id, requests, &failed).await,
        }
    }

    /// Sends a notification of the commit to other processes, if that is enabled.
    pub(super) fn send_notify(&self) {
        self.signals.tell(&self.datastore);
    }

    /// Retries a request by the task of its application. A request behind another one of the same application waits
    /// for it, since positions must not overtake each other.
    fn retry(self: &Arc<Self>, request: Request, alive: &Arc<watch::Sender<()>>) {
        let Some(application) = request.application_name().map(str::to_owned) else { return };
        let mut locked = self.locked();
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
                if committer.answer(request, result).is_ok() && has_events {
                    committer.send_notify();
                }
                next = committer.next_locked(&application);
            }
            drop(alive);
        });
    }

    /// The next request that waits behind a locked position. If there is none, the application is not locked any
    /// more.
    fn next_locked(&self, application: &str) -> Option<Request> {
        let mut locked = self.locked();
        let next = locked.get_mut(application).and_then(VecDeque::pop_front);
        if next.is_none() {
            locked.remove(application);
        }
        next
    }

    /// Returns a request, unless it has to wait behind another one whose position is locked.
    pub(super) fn unless_locked(&self, request: Request) -> Option<Request> {
        let Some(application) = request.application_name() else { return Some(request) };
        let mut locked = self.locked();
        let Some(waiting) = locked.get_mut(application) else { return Some(request) };
        waiting.push_back(request);
        None
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Request>>> {
        // No code panics while it holds the lock.
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
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
            let result = match (&unavailable, failed.verdict) {
                (Some(error), _) => Err(Unrecorded::Unavailable(error.clone())),
                (None, Verdict::Lost) => self.recover_outcome(batch, known_id).await,
                (None, Verdict::Unavailable) => Err(Unrecorded::Failed(failed.error.clone())),
                (None, Verdict::Refused) if is_alone => Err(Unrecorded::Failed(failed.error.clone())),
                // The fault of one request must not fail another.
                (None, Verdict::Contended | Verdict::Refused) => self.commit_alone(known_id, batch).await,
            };
            if let (None, Err(Unrecorded::Unavailable(error))) = (&unavailable, &result) {
                // Requests that are committed one by one were not sent again.
                let is_unknown = failed.verdict == Verdict::Lost;
                unavailable = Some(if is_unknown { error.clone() } else { not_sent(error) });
            }
            answers.push(self.answer(request, result));
        }
        answers
    }

    async fn commit_alone(&self, known_id: i64, batch: Batch<'_>) -> Result<Vec<i64>, Unrecorded> {
        let mut retries = Retries::within(CONTENTION_TIME);
        // As long as other waits for a lock.
        let lock_timeout = self.datastore.0.options.lock_timeout;
        let mut locked = Retries::polling((!lock_timeout.is_zero()).then_some(lock_timeout));
        let mut violations = 0;
        let mut scope = Scope::Own;
        loop {
            let failed = match self.append_one(batch, std::mem::replace(&mut scope, Scope::Own)).await {
                Ok(Outcome::Recorded(ids)) => return Ok(ids),
                Ok(Outcome::Refused(refusal)) => return Err(Unrecorded::Refused(refusal)),
                Ok(Outcome::FirstPosition) => {
                    scope = Scope::FirstPosition;
                    continue;
                }
                Ok(Outcome::Locked) if locked.again().await => continue,
                Ok(Outcome::Locked) => return Err(Unrecorded::Failed(position_locked())),
                Ok(Outcome::NotInserted) if retries.again().await => continue,
                Ok(Outcome::NotInserted) => return Err(Unrecorded::Failed(position_skipped())),
                Err(failed) => failed,
            };
            violations += usize::from(failed.is_unique_violation);
            match failed.verdict {
                Verdict::Lost => return self.recover_outcome(batch, known_id).await,
                // A version that is taken stays taken, and the next attempt reports it. What repeats is a unique
                // index of the user's, or a trigger.
                Verdict::Contended if violations > MOST_VIOLATIONS => {
                    return Err(Unrecorded::Failed(failed.error));
                }
                Verdict::Contended if retries.again().await => {}
                Verdict::Unavailable => return Err(Unrecorded::Unavailable(failed.error)),
                _ => return Err(Unrecorded::Failed(failed.error)),
            }
        }
    }

    pub(super) async fn append_one(&self, batch: Batch<'_>, scope: Scope) -> Result<Outcome, AppendError> {
        let outcomes = self.append(&[batch], scope).await?;
        let outcome = outcomes.into_iter().next();
        outcome.ok_or_else(|| AppendError::internal("an append of one request has no outcome"))
    }

    /// Appends on a connection that accepts writes: of several hosts, another one may do so now.
    async fn append(&self, batches: &[Batch<'_>], scope: Scope) -> Result<Vec<Outcome>, AppendError> {
        let connections = &self.datastore.0.connections;
        let mut retries = Retries::within(self.datastore.0.options.connect_timeout);
        let mut is_refreshed = false;
        loop {
            let appender = self.appender.get();
            let leased = connections.lease(Caller::Writer).await;
            let mut lease = leased.map_err(|failed| AppendError::unavailable(failed.into()))?;
            let backend = lease.backend();
            let appending = appender.append(&mut lease, batches, scope);
            let appended = connections.answered(backend, appending).await;
            let failed = match appended.unwrap_or_else(|silent| Err(appender.failed(silent))) {
                Ok(outcomes) => {
                    lease.finish();
                    return Ok(outcomes);
                }
                Err(failed) => failed,
            };
            if failed.is_connection_usable {
                lease.finish();
            } else {
                drop(lease);
            }
            if failed.verdict == Verdict::Lost || failed.read_only {
                connections.purge();
            }
            if failed.is_layout_changed && !is_refreshed {
                is_refreshed = true;
                self.appender.refresh().await.map_err(AppendError::unavailable)?;
                continue;
            }
            let other_hosts = self.datastore.0.options.hosts.len() > 1;
            if !(failed.read_only && other_hosts && retries.again().await) {
                return Err(failed);
            }
        }
    }

    /// Answers a request, after waking the tasks that wait for it.
    fn answer(&self, request: Request, result: Result<Vec<i64>, Unrecorded>) -> Answer {
        match result {
            Ok(ids) => {
                if let Some(id) = ids.last() {
                    self.known_id.fetch_max(*id, Atomic::Relaxed);
                }
                self.signals.recorded(&request);
                request.answer(Ok(ids));
                Ok(())
            }
            Err(Unrecorded::Refused(refusal)) => {
                let conflict = refusal.conflict().cloned();
                request.answer(Err(refusal));
                Err(conflict)
            }
            Err(Unrecorded::Failed(error) | Unrecorded::Unavailable(error)) => {
                request.answer(Err(error));
                Err(None)
            }
        }
    }

    pub(super) async fn reached(&self, point: FaultPoint) {
        self.datastore.0.options.hooks.reached(point).await;
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

//! Group commit: the requests that wait for the writing connection share a commit.
//!
//! A group is one transaction: all waiting requests, each all or nothing by itself, then one commit, then the
//! replies. If no request waits, the next one is committed immediately; groups grow while a commit keeps the
//! disk busy, so that batching adds no delay of its own.
//!
//! The holder of the [`Committer`] commits: the writer thread, or a caller in an [inline
//! commit](super::inline).

use std::{sync::Arc, time::Instant};

use es_core::{PersistenceError, Topic};
use parking_lot::Mutex;
use rusqlite::Connection;

use super::{
    checkpoint,
    connection::{CommitError, WriteConnection},
    group::Group,
    queue::Queue,
    request::{Outcome, Request},
};
use crate::{
    connection::{Job, Session},
    error::from_sqlite,
    fault_hooks::FaultPoint,
    follow::Signals,
    limits::{AverageLatency, INLINE_COMMIT_LATENCY, INLINE_LIMITS, Limits},
    options::SqliteOptions,
};

/// Work for the writing connection.
pub(crate) enum Command {
    Append(Request),
    /// A transaction of a projection, or of maintenance.
    Transact(Box<dyn FnOnce(&Committer) + Send>),
    /// Other work on the writing connection, between groups.
    Run(Job),
    /// Poll for commits of other connections.
    StartPolling,
    /// Copy the write-ahead log, which has become long, into the database.
    Checkpoint,
}

/// A committer that the writer thread shares with callers, until the datastore is closed.
pub(crate) type SharedCommitter = Arc<Mutex<Option<Committer>>>;

/// The writing connection, and the state of group commit. Only its holder takes commands from the queue, so
/// that they run in order.
pub(crate) struct Committer {
    pub(crate) writing: WriteConnection,
    pub(crate) signals: Signals,
    pub(super) queue: Arc<Queue<Command>>,
    pub(super) limits: Limits,
    /// The time of short commits, which decides whether callers commit inline.
    pub(crate) latency: Arc<AverageLatency>,
    /// True if nothing within a transaction waits for other connections: in memory or with a write-ahead log,
    /// and with a cache of its own.
    is_contention_free: bool,
}

impl Committer {
    pub(crate) fn new(
        connection: Connection,
        queue: Arc<Queue<Command>>,
        signals: Signals,
        is_contention_free: bool,
        SqliteOptions { group: limits, lock_timeout, hooks, .. }: &SqliteOptions,
    ) -> Self {
        checkpoint::disable_autocheckpoint(&connection);
        let writing = WriteConnection::new(Session::new(connection), *lock_timeout, hooks.clone());
        let latency = Arc::new(AverageLatency::new(INLINE_COMMIT_LATENCY));
        Self { writing, signals, queue, limits: *limits, latency, is_contention_free }
    }

    /// Writes a request and those that wait behind it, up to the limits, in one transaction; or in one for
    /// each request, if they cannot share one. Waits for the locks of other connections.
    pub(super) fn write(&self, first: Request, limits: Limits) {
        let mut group = Group::of(first);
        self.gather(&mut group, limits);
        let begun = self.writing.begin().map_err(|error| CommitError::Failed(from_sqlite(error)));
        match begun.and_then(|()| self.transact(&mut group, limits)) {
            Err(CommitError::RetryIndividually(_)) if group.requests.len() > 1 => {
                group.requests.into_iter().for_each(|request| self.write(request, Limits::ZERO));
            }
            committed => self.reply(group, committed.map_err(Into::into)),
        }
    }

    /// Adds waiting requests to the group, up to the limits.
    pub(super) fn gather(&self, group: &mut Group, limits: Limits) {
        while let Some(Command::Append(request)) = self.queue.pop_if(
            |next| matches!(next, Command::Append(request) if group.has_capacity_for(request, limits)),
        ) {
            group.add(request);
        }
    }

    /// Appends and commits a group, to which requests that arrive meanwhile are added up to the limits.
    /// Returns the outcome of each request.
    pub(super) fn transact(&self, group: &mut Group, limits: Limits) -> Result<Vec<Outcome>, CommitError> {
        let began = Instant::now();
        let is_single = self.is_contention_free && group.requests.len() == 1;
        let mut outcomes = Vec::with_capacity(group.requests.len());
        while let Some(request) = group.requests.get(outcomes.len()) {
            let needs_savepoint = !is_single || !outcomes.is_empty();
            let outcome = self.writing.append(request.batch(), needs_savepoint);
            if let Err(error) = &outcome {
                if self.writing.connection().is_autocommit() {
                    return Err(CommitError::RetryIndividually(error.clone()));
                }
                if !needs_savepoint {
                    return self.abort(outcome);
                }
            }
            outcomes.push(outcome);
            if outcomes.len() == group.requests.len() {
                self.gather(group, limits);
            }
        }
        let committed = self.writing.commit(|connection| group.is_committed(connection, &outcomes));
        if INLINE_LIMITS.contain(group.rows, group.bytes) {
            self.latency.record(began.elapsed());
        }
        committed?;
        for (request, outcome) in group.requests.iter().zip(&outcomes) {
            if let Ok([.., last]) = outcome.as_deref() {
                self.writing.record_max_id(&request.table, *last);
            }
        }
        Ok(outcomes)
    }

    /// Rolls back the transaction of a single request that failed. If the file was replaced, the outcome says
    /// nothing about the database, and the result is that error instead.
    fn abort(&self, outcome: Outcome) -> Result<Vec<Outcome>, CommitError> {
        if let Err(error) = self.writing.roll_back() {
            // The next transaction tries again before it begins.
            tracing::warn!(%error, "a transaction cannot be rolled back");
        }
        match self.writing.session.file_identity.verify_unchanged() {
            Ok(()) => Ok(vec![outcome]),
            Err(error) => Err(CommitError::Failed(from_sqlite(error))),
        }
    }

    /// Sends each request its outcome, or the same error to all of them.
    pub(super) fn reply(&self, group: Group, outcomes: Result<Vec<Outcome>, PersistenceError>) {
        let outcomes = outcomes.unwrap_or_else(|error| vec![Err(error); group.requests.len()]);
        // The outcomes are final; a fault cannot change them any more.
        let _ = self.writing.before(FaultPoint::Reply);
        for (request, outcome) in group.requests.into_iter().zip(outcomes) {
            if outcome.is_ok() {
                self.signal(&request);
            }
            request.reply(outcome);
        }
    }

    /// Wakes the listeners of a recorded request.
    fn signal(&self, request: &Request) {
        if request.table.is_numbered {
            self.signals.commits.wake(request.events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        if let Some(tracking) = &request.tracking {
            self.signals.positions.wake([tracking.application_name()]);
        }
    }
}

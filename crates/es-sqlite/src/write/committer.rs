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
    limits::{AverageLatency, INLINE_LIMITS, Limits},
    options::SqliteOptions,
};

/// Work for the writing connection.
pub(crate) enum Command {
    Append(Request),
    /// A transaction of a projection.
    Project(Box<dyn FnOnce(&Committer) + Send>),
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
    latency: Arc<AverageLatency>,
    /// True if nothing within a transaction waits for other connections: in memory or with a write-ahead log,
    /// and with a cache of its own.
    is_contention_free: bool,
}

/// The result of a transaction.
pub(super) enum Commit {
    /// The group is committed; each request has its own outcome.
    Done(Vec<Outcome>),
    /// Nothing was recorded, but single requests may succeed: the disk was too full for all of them, or one
    /// of them made SQLite roll back the transaction.
    RetryIndividually(PersistenceError),
    /// Nothing was recorded, or the outcome is unknown.
    Failed(PersistenceError),
}

impl Committer {
    pub(crate) fn new(
        connection: Connection,
        queue: Arc<Queue<Command>>,
        signals: Signals,
        latency: Arc<AverageLatency>,
        is_contention_free: bool,
        SqliteOptions { group: limits, lock_timeout, hooks, .. }: &SqliteOptions,
    ) -> Self {
        checkpoint::disable_autocheckpoint(&connection);
        let writing = WriteConnection::new(Session::new(connection), *lock_timeout, hooks.clone());
        Self { writing, signals, queue, limits: *limits, latency, is_contention_free }
    }

    /// Writes a request and those that wait behind it, up to the limits of a group.
    pub(crate) fn write(&self, first: Request) {
        let mut group = Group::of(first);
        self.gather(&mut group, self.limits);
        match self.begin_and_transact(&mut group, self.limits) {
            Commit::Done(outcomes) => self.reply(group, outcomes),
            Commit::RetryIndividually(_) if group.requests.len() > 1 => self.write_individually(group),
            Commit::RetryIndividually(error) | Commit::Failed(error) => self.refuse(group, &error),
        }
    }

    fn write_individually(&self, group: Group) {
        for request in group.requests {
            let mut group = Group::of(request);
            match self.begin_and_transact(&mut group, Limits::ZERO) {
                Commit::Done(outcomes) => self.reply(group, outcomes),
                Commit::RetryIndividually(error) | Commit::Failed(error) => self.refuse(group, &error),
            }
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

    /// Waits for the locks of other connections.
    fn begin_and_transact(&self, group: &mut Group, limits: Limits) -> Commit {
        match self.writing.begin() {
            Ok(()) => self.transact(group, limits),
            Err(error) => Commit::Failed(from_sqlite(error)),
        }
    }

    /// Appends and commits a group, to which requests that arrive meanwhile are added up to the limits.
    pub(super) fn transact(&self, group: &mut Group, limits: Limits) -> Commit {
        let began = Instant::now();
        let is_single = self.is_contention_free && group.requests.len() == 1;
        let mut outcomes = Vec::with_capacity(group.requests.len());
        while let Some(request) = group.requests.get(outcomes.len()) {
            let Request { table, events, tracking, .. } = request;
            let needs_no_savepoint = is_single && outcomes.is_empty();
            let outcome = if needs_no_savepoint {
                self.writing.append_without_savepoint(table, events, tracking.as_ref())
            } else {
                self.writing.append(table, events, tracking.as_ref())
            };
            if let Err(error) = &outcome {
                if self.writing.connection().is_autocommit() {
                    return Commit::RetryIndividually(error.clone());
                }
                if needs_no_savepoint {
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
        match committed {
            Ok(()) => {
                let last_ids = outcomes.iter().flatten().filter_map(|ids| ids.last());
                last_ids.for_each(|id| self.writing.record_max_id(*id));
                Commit::Done(outcomes)
            }
            Err(CommitError::DiskFull(error)) => Commit::RetryIndividually(error),
            Err(CommitError::Failed(error)) => Commit::Failed(error),
        }
    }

    /// Rolls back the transaction of a single request that failed. If the file was replaced, the outcome says
    /// nothing about the database, and the result is that error instead.
    fn abort(&self, outcome: Outcome) -> Commit {
        if let Err(error) = self.writing.roll_back() {
            // The next transaction tries again before it begins.
            tracing::warn!(%error, "a transaction cannot be rolled back");
        }
        match self.writing.session.file_identity.verify_unchanged() {
            Ok(()) => Commit::Done(vec![outcome]),
            Err(error) => Commit::Failed(from_sqlite(error)),
        }
    }

    pub(super) fn reply(&self, group: Group, outcomes: Vec<Outcome>) {
        // The outcomes are final; a fault cannot change them any more.
        let _ = self.writing.before(FaultPoint::Reply);
        for (request, outcome) in group.requests.into_iter().zip(outcomes) {
            if outcome.is_ok() {
                self.signal(&request);
            }
            request.reply(outcome);
        }
    }

    pub(super) fn refuse(&self, group: Group, error: &PersistenceError) {
        let outcomes = group.requests.iter().map(|_| Err(error.clone())).collect();
        self.reply(group, outcomes);
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

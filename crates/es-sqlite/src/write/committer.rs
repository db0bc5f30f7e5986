//! Group commit: what waits for the writing connection is committed together.
//!
//! A group is one transaction: every request that waits, each all or nothing by itself, then one
//! commit, then the replies. Without work waiting, the next request is committed at once; groups grow
//! while a commit keeps the disk busy, so that batching adds no wait of its own.
//!
//! Whoever holds the [`Committer`] commits: the writer thread, or a caller whose request waits, when
//! that is [short](crate::limits). A caller waits for nobody's lock; whatever is in its way, it leaves
//! the requests where they were, and the writer thread, which waits and tells what is wrong, does them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{PersistenceError, StoredEvent, Tracking};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    SqliteOptions,
    error::from_sqlite,
    fault_hooks::FaultPoint,
    follow::signals::Signals,
    limits::{Bounds, Pace, SHORT},
    projection::job::Projecting,
    read::select::{Job, Session},
    schema::tables::EventTable,
    write::{
        append, checkpoint,
        queue::Queue,
        transaction::{CommitError, WritingConnection},
    },
};

/// Commits that take longer on average are the writer thread's. A commit of one event takes about 150 µs, and
/// one of ten that fill pages 280 µs, on a disk that flushes in 100 µs; where a flush takes milliseconds,
/// nothing would be won.
pub(crate) const LIMIT: Duration = Duration::from_micros(500);

/// What a request takes in memory, and an event beside its topic and state, roughly.
const OVERHEAD: usize = 128;

/// What waits for the writing connection.
pub(crate) enum Command {
    Append(Request),
    Project(Projecting),
    /// Something else to do with the writing connection, between groups.
    Run(Job),
    /// Look for what others commit.
    Watch,
    /// Copy the log, which has become long, into the database.
    TidyLog,
}

/// Events and a tracking record to append as one.
pub(crate) struct Request {
    pub(crate) table: Arc<EventTable>,
    pub(crate) events: Vec<StoredEvent>,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) reply: oneshot::Sender<Outcome>,
    /// The request's place in the queue, given back when it is done.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The notification ids, or why nothing was recorded.
pub(crate) type Outcome = Result<Vec<i64>, PersistenceError>;

/// The writing connection, and what committing with it takes. Commands are taken from the queue by who
/// holds it alone, so that they are done in their order.
pub(crate) struct Committer {
    pub(crate) writing: WritingConnection,
    queue: Arc<Queue<Command>>,
    bounds: Bounds,
    signals: Signals,
    pace: Arc<Pace>,
    /// Whether nothing within a transaction waits for locks of others: in memory or with a write-ahead log,
    /// and a cache of its own.
    is_undisturbed: bool,
}

/// Requests on their way to one commit.
#[derive(Default)]
struct Group {
    requests: Vec<Request>,
    rows: usize,
    bytes: usize,
}

/// What a transaction came to.
enum Commit {
    /// It is committed; each request has an outcome of its own.
    Done(Vec<Outcome>),
    /// Nothing was recorded, and each request alone may fare better: there was no room for all, or
    /// one of them made SQLite roll everything back.
    TogetherFailed(PersistenceError),
    /// Nothing was recorded, or that is unknown.
    Failed(PersistenceError),
}

impl Committer {
    pub(crate) fn new(
        connection: Connection,
        queue: Arc<Queue<Command>>,
        signals: Signals,
        pace: Arc<Pace>,
        is_undisturbed: bool,
        SqliteOptions { group: bounds, lock_timeout, hooks, .. }: &SqliteOptions,
    ) -> Self {
        checkpoint::leave_alone(&connection);
        let writing = WritingConnection::new(Session::new(connection), *lock_timeout, hooks.clone());
        Self { writing, queue, bounds: *bounds, signals, pace, is_undisturbed }
    }

    /// Writes a request and those that wait behind it, as far as a group takes them.
    pub(crate) fn write(&self, first: Request) {
        let mut group = Group::default();
        group.add(first);
        self.gather(&mut group, self.bounds);
        match self.begin_and_transact(&mut group, self.bounds) {
            Commit::Done(outcomes) => self.reply(group, outcomes),
            Commit::TogetherFailed(_) if group.requests.len() > 1 => self.write_one_by_one(group),
            Commit::TogetherFailed(error) | Commit::Failed(error) => self.refuse(group, &error),
        }
    }

    /// Writes what waits, as far as that is short, on the caller's thread, and tells how many requests that were.
    /// Something is left in the queue if the writer thread has to go on.
    pub(crate) fn write_at_once(&self) -> usize {
        let bounds = self.bounds.and(SHORT);
        let mut group = Group::default();
        self.gather(&mut group, bounds);
        if group.requests.is_empty() {
            return 0;
        }
        if let Err(error) = self.writing.begin_at_once() {
            tracing::trace!(%error, "left to the writer thread");
            self.put_back(group);
            return 0;
        }
        let commit = self.transact(&mut group, bounds);
        let written = group.requests.len();
        match commit {
            Commit::Done(outcomes) => self.reply(group, outcomes),
            Commit::TogetherFailed(_) => {
                self.put_back(group);
                return 0;
            }
            Commit::Failed(error) => self.refuse(group, &error),
        }
        if checkpoint::was_left_long() {
            // Whoever closes the database does it anyway.
            let _ = self.queue.push(Command::TidyLog);
        }
        written
    }

    pub(crate) fn project(&self, mut work: Projecting) {
        if !work.is_wanted() {
            return;
        }
        let outcome = work.run(&self.writing);
        // The result stands; a fault cannot change it any more.
        let _ = self.writing.before(FaultPoint::Reply);
        if outcome.is_ok() {
            self.signals.positions.wake([work.application_name()]);
        }
        work.reply(outcome);
    }

    fn write_one_by_one(&self, group: Group) {
        for request in group.requests {
            let mut alone = Group::default();
            alone.add(request);
            match self.begin_and_transact(&mut alone, Bounds::NOTHING) {
                Commit::Done(outcomes) => self.reply(alone, outcomes),
                Commit::TogetherFailed(error) | Commit::Failed(error) => self.refuse(alone, &error),
            }
        }
    }

    fn put_back(&self, group: Group) {
        self.queue.put_back(group.requests.into_iter().map(Command::Append));
    }

    /// Adds the requests that wait, as far as the bounds allow.
    fn gather(&self, group: &mut Group, bounds: Bounds) {
        while let Some(Command::Append(request)) = self.queue.pop_if(|next| group.takes(next, bounds)) {
            group.add(request);
        }
    }

    /// Waits for the lock of other connections.
    fn begin_and_transact(&self, group: &mut Group, bounds: Bounds) -> Commit {
        match self.writing.begin() {
            Ok(()) => self.transact(group, bounds),
            Err(error) => Commit::Failed(from_sqlite(error)),
        }
    }

    /// Appends and commits a group, which grows within the bounds by what arrives meanwhile.
    fn transact(&self, group: &mut Group, bounds: Bounds) -> Commit {
        let began = Instant::now();
        let is_alone = self.is_undisturbed && group.requests.len() == 1;
        let mut outcomes = Vec::with_capacity(group.requests.len());
        while let Some(request) = group.requests.get(outcomes.len()) {
            let Request { table, events, tracking, .. } = request;
            let needs_no_savepoint = is_alone && outcomes.is_empty();
            let outcome = if needs_no_savepoint {
                self.writing.append_unguarded(table, events, tracking.as_ref())
            } else {
                self.writing.append(table, events, tracking.as_ref())
            };
            if let Err(error) = &outcome {
                if self.writing.connection().is_autocommit() {
                    return Commit::TogetherFailed(error.clone());
                }
                if needs_no_savepoint {
                    return self.give_up(outcome);
                }
            }
            outcomes.push(outcome);
            if outcomes.len() == group.requests.len() {
                self.gather(group, bounds);
            }
        }
        let committed = self.writing.commit(|connection| is_committed(connection, group, &outcomes));
        if SHORT.hold(group.rows, group.bytes) {
            self.pace.learn(began.elapsed());
        }
        match committed {
            Ok(()) => {
                let last_ids = outcomes.iter().flatten().filter_map(|ids| ids.last());
                last_ids.for_each(|id| self.writing.remember(*id));
                Commit::Done(outcomes)
            }
            Err(CommitError::NoRoom(error)) => Commit::TogetherFailed(error),
            Err(CommitError::Failed(error)) => Commit::Failed(error),
        }
    }

    /// Ends the transaction of a request that was alone in it, and failed. What was found in a file that is no longer
    /// there is no answer.
    fn give_up(&self, outcome: Outcome) -> Commit {
        if let Err(error) = self.writing.roll_back() {
            // The next transaction tries it again before it begins.
            tracing::warn!(%error, "a transaction cannot be rolled back");
        }
        match self.writing.session.place.require_unmoved() {
            Ok(()) => Commit::Done(vec![outcome]),
            Err(error) => Commit::Failed(from_sqlite(error)),
        }
    }

    fn reply(&self, group: Group, outcomes: Vec<Outcome>) {
        // The results stand; a fault cannot change them any more.
        let _ = self.writing.before(FaultPoint::Reply);
        for (request, outcome) in group.requests.into_iter().zip(outcomes) {
            if outcome.is_ok() {
                self.signals.recorded(&request);
            }
            request.reply(outcome);
        }
    }

    fn refuse(&self, group: Group, error: &PersistenceError) {
        let outcomes = group.requests.iter().map(|_| Err(error.clone())).collect();
        self.reply(group, outcomes);
    }
}

impl Group {
    fn add(&mut self, request: Request) {
        self.rows += request.rows();
        self.bytes += weight(&request.events);
        self.requests.push(request);
    }

    fn takes(&self, command: &Command, bounds: Bounds) -> bool {
        let Command::Append(request) = command else { return false };
        bounds.hold(self.rows + request.rows(), self.bytes + weight(&request.events))
    }
}

impl Request {
    /// Whether it may be written on the caller's thread.
    pub(crate) fn is_short(&self) -> bool {
        SHORT.hold(self.rows(), weight(&self.events))
    }

    fn rows(&self) -> usize {
        self.events.len() + usize::from(self.tracking.is_some())
    }

    /// Gives the place in the queue back, and tells the caller, who may be gone.
    fn reply(self, outcome: Outcome) {
        drop(self.permit);
        let _ = self.reply.send(outcome);
    }
}

/// What a request for these events counts in the queue and in a group, in bytes.
pub(crate) fn weight<'e>(events: impl IntoIterator<Item = &'e StoredEvent>) -> usize {
    let events = events.into_iter().map(|event| OVERHEAD + event.topic.len() + event.state.len());
    OVERHEAD + events.sum::<usize>()
}

/// Whether a group stands in the database: exactly its rows. Nothing when that cannot be said.
///
/// A group is committed whole or not at all, so all signs must agree.
fn is_committed(
    connection: &Connection,
    group: &Group,
    outcomes: &[Outcome],
) -> rusqlite::Result<Option<bool>> {
    let mut committed = None;
    let mut has_appended = false;
    for (request, outcome) in group.requests.iter().zip(outcomes) {
        let Ok(ids) = outcome else { continue };
        has_appended = true;
        let Some(sign) = is_recorded(connection, request, ids)? else { continue };
        if committed.is_some_and(|committed| committed != sign) {
            return Ok(None);
        }
        committed = Some(sign);
    }
    // Without a request that appended anything, there was nothing to commit.
    Ok(if has_appended { committed } else { Some(true) })
}

/// A tracking record alone may be another process's, recorded since: it says nothing when it is there,
/// only when it is missing.
fn is_recorded(connection: &Connection, request: &Request, ids: &[i64]) -> rusqlite::Result<Option<bool>> {
    if !request.events.is_empty() {
        return append::are_recorded(connection, &request.table, &request.events, ids).map(Some);
    }
    let Some(tracking) = &request.tracking else { return Ok(None) };
    let recorded = append::max_tracking_id(connection, tracking.application_name())?;
    Ok(if recorded < Some(tracking.notification_id()) { Some(false) } else { None })
}

//! The thread that owns the writing connection, and commits what waits for it in groups.
//!
//! A group is one transaction: every request that waits, each all or nothing by itself, then one
//! commit, then the replies. A writer without work commits the next request at once; groups grow
//! while a commit keeps the disk busy, so that batching adds no wait of its own.

use std::{sync::Arc, task::Poll, time::Duration};

use es_core::{PersistenceError, StoredEvent, Tracking};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedReceiver, oneshot};

use crate::{
    SqliteOptions, append,
    connection::{CommitError, WritingConnection},
    error::from_sqlite,
    hooks::WriterStep,
    inbox::Inbox,
    log::Log,
    options::GroupBounds,
    projecting::Projecting,
    reader::{Job, Session},
    schema::EventTable,
    signals::Signals,
    watch::Watch,
};

/// What a request takes in memory, and an event beside its topic and state, roughly.
const OVERHEAD: usize = 128;

/// What callers ask of the writer thread.
pub(crate) enum Command {
    Append(Request),
    Project(Projecting),
    /// Something else to do with the writing connection, between groups.
    Run(Job),
    /// Look for what others commit.
    Watch,
    /// Do what was accepted, then end.
    Close,
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

/// The writer thread's work.
pub(crate) struct Writer {
    writing: WritingConnection,
    inbox: Inbox<Command>,
    /// A command that was taken while a group was gathered and belongs to no group, or the next.
    held_back: Option<Command>,
    bounds: GroupBounds,
    lock_timeout: Duration,
    log: Option<Log>,
    signals: Signals,
    watch: Watch,
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

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        commands: UnboundedReceiver<Command>,
        signals: Signals,
        SqliteOptions { group: bounds, lock_timeout, poll_interval, hooks, .. }: SqliteOptions,
    ) -> Self {
        let log = Log::of(&connection);
        let watch = Watch::new(&connection, poll_interval);
        let writing = WritingConnection::new(Session::new(connection), lock_timeout, hooks);
        let inbox = Inbox::of_this_thread(commands);
        Self { writing, inbox, held_back: None, bounds, lock_timeout, log, signals, watch }
    }

    /// Works until the last handle is gone, or told to close, and everything accepted is done.
    pub(crate) fn run(mut self) {
        while let Some(command) = self.next_command() {
            match command {
                Command::Append(request) => {
                    self.write(request);
                    self.tidy_log();
                }
                Command::Project(work) => {
                    self.project(work);
                    self.tidy_log();
                }
                Command::Run(job) => job(&mut self.writing.session),
                Command::Watch => self.watch.start(),
                Command::Close => self.inbox.close(),
            }
        }
        self.signals.close();
    }

    /// What to do next; looks for what others commit while it waits, and before, if it is time to.
    fn next_command(&mut self) -> Option<Command> {
        loop {
            self.watch.look(self.writing.connection(), &self.signals);
            if let Some(command) = self.held_back.take() {
                return Some(command);
            }
            if let Poll::Ready(command) = self.inbox.receive(self.watch.due()) {
                return command;
            }
        }
    }

    /// After the replies: nobody waits for it but who comes next.
    fn tidy_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.tidy(self.writing.connection(), self.lock_timeout);
        }
    }

    /// Writes a request and those that wait behind it.
    fn write(&mut self, first: Request) {
        let mut group = Group::of(first);
        self.gather(&mut group);
        match self.transact(&mut group, true) {
            Commit::Done(outcomes) => self.reply(group, outcomes),
            Commit::TogetherFailed(_) if group.requests.len() > 1 => self.write_one_by_one(group),
            Commit::TogetherFailed(error) | Commit::Failed(error) => self.refuse(group, &error),
        }
    }

    fn write_one_by_one(&mut self, group: Group) {
        for request in group.requests {
            let mut alone = Group::of(request);
            match self.transact(&mut alone, false) {
                Commit::Done(outcomes) => self.reply(alone, outcomes),
                Commit::TogetherFailed(error) | Commit::Failed(error) => self.refuse(alone, &error),
            }
        }
    }

    /// Adds the requests that wait, as far as the bounds allow.
    fn gather(&mut self, group: &mut Group) {
        while self.held_back.is_none() {
            match self.inbox.try_receive() {
                Some(Command::Append(request)) if group.has_room_for(&request, self.bounds) => {
                    group.add(request);
                }
                Some(other) => self.held_back = Some(other),
                None => return,
            }
        }
    }

    /// Appends and commits a group, which grows by what arrives meanwhile if `may_grow`.
    fn transact(&mut self, group: &mut Group, may_grow: bool) -> Commit {
        if let Err(error) = self.writing.begin() {
            return Commit::Failed(from_sqlite(error));
        }
        let mut outcomes = Vec::with_capacity(group.requests.len());
        while let Some(request) = group.requests.get(outcomes.len()) {
            let Request { table, events, tracking, .. } = request;
            let outcome = self.writing.append(table, events, tracking.as_ref());
            if let Err(error) = &outcome
                && self.writing.connection().is_autocommit()
            {
                return Commit::TogetherFailed(error.clone());
            }
            outcomes.push(outcome);
            if may_grow && outcomes.len() == group.requests.len() {
                self.gather(group);
            }
        }
        match self.writing.commit(|connection| is_committed(connection, group, &outcomes)) {
            Ok(()) => Commit::Done(outcomes),
            Err(CommitError::NoRoom(error)) => Commit::TogetherFailed(error),
            Err(CommitError::Failed(error)) => Commit::Failed(error),
        }
    }

    fn project(&mut self, mut work: Projecting) {
        if !work.is_wanted() {
            return;
        }
        let outcome = work.run(&self.writing);
        // The result stands; a fault cannot change it any more.
        let _ = self.writing.before(WriterStep::Reply);
        if outcome.is_ok() {
            self.signals.positions.wake([work.application_name()]);
        }
        work.reply(outcome);
    }

    fn reply(&self, group: Group, outcomes: Vec<Outcome>) {
        // The results stand; a fault cannot change them any more.
        let _ = self.writing.before(WriterStep::Reply);
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
    fn of(request: Request) -> Self {
        let mut group = Self::default();
        group.add(request);
        group
    }

    fn add(&mut self, request: Request) {
        self.rows += request.rows();
        self.bytes += weight(&request.events);
        self.requests.push(request);
    }

    fn has_room_for(&self, request: &Request, bounds: GroupBounds) -> bool {
        self.rows + request.rows() <= bounds.rows && self.bytes + weight(&request.events) <= bounds.bytes
    }
}

impl Request {
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

//! What is read, and the threads that read it.

use std::{
    rc::Rc,
    sync::mpsc,
    time::{Duration, Instant},
};

use async_channel::{Receiver, Sender};
use es_core::{
    ErrorKind, EventRange, Notification, NotificationSelection, PersistenceError, StoredEvent, Tracking,
    uuid::Uuid,
};
use rusqlite::{Connection, types::Value};

use crate::{
    connection::{file_identity::Place, threads::Threads},
    error::from_sqlite,
    limits::{Bounds, SHORT},
    schema::{
        rows::{RowReader, Topics},
        tables::EventTable,
    },
    write::append::{self, with_stored_id},
};

/// How many reads wait for a thread before callers do.
const JOBS_WAITING: usize = 1_024;

/// After how many of its steps, of which a row takes some ten, SQLite asks whether to go on.
const STEPS_BETWEEN_QUESTIONS: i32 = 4_096;

/// A connection with what reading keeps between queries.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) place: Place,
    topics: Topics,
}

/// Something to do with a session, on the thread that owns it.
pub(crate) type Job = Box<dyn FnOnce(&mut Session) + Send>;

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self { place: Place::of(&connection), connection, topics: Topics::default() }
    }

    /// Does `work`, unless it is abandoned: SQLite then stops soon, with an error that nobody reads.
    pub(crate) fn unless<T>(
        &mut self,
        is_abandoned: impl FnMut() -> bool + Send + 'static,
        work: impl FnOnce(&mut Self) -> Result<T, PersistenceError>,
    ) -> Result<T, PersistenceError> {
        self.connection.progress_handler(STEPS_BETWEEN_QUESTIONS, Some(is_abandoned)).map_err(from_sqlite)?;
        let result = work(self);
        self.connection.progress_handler(0, None::<fn() -> bool>).map_err(from_sqlite)?;
        result
    }

    /// Reads; again if that is refused, once it is certain that SQLite knows the tables.
    ///
    /// It says that there is no such table also where it could not look whether there is one meanwhile.
    pub(crate) fn read<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, PersistenceError>,
    ) -> Result<T, PersistenceError> {
        match read(self) {
            Err(error) if error.kind() == ErrorKind::Programming => {
                let look = self.connection.prepare_cached("SELECT COUNT(*) FROM sqlite_schema");
                look.and_then(|mut look| look.query_row((), |_| Ok(()))).map_err(from_sqlite)?;
                read(self)
            }
            result => result,
        }
    }

    pub(crate) fn select_events(
        &mut self,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let events = self.select_events_within(Bounds::NONE, None, table, originator_id, range)?;
        Ok(events.unwrap_or_default())
    }

    /// Returns the events, or nothing if they exceed `bounds` or take longer than `time`. Records how long
    /// short reads take.
    pub(crate) fn select_events_within(
        &mut self,
        bounds: Bounds,
        time: Option<Duration>,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Option<Vec<StoredEvent>>, PersistenceError> {
        let began = Instant::now();
        let mut select = self.connection.prepare_cached(table.select(&range)).map_err(from_sqlite)?;
        with_stored_id(originator_id, |id| select.raw_bind_parameter(1, id)).map_err(from_sqlite)?;
        for (parameter, bound) in [(2, range.gt), (3, range.lte)] {
            let Some(bound) = bound else { continue };
            select.raw_bind_parameter(parameter, bound).map_err(from_sqlite)?;
        }
        let limit = range.limit.unwrap_or(usize::MAX);
        let max_bytes = range.max_bytes.unwrap_or(usize::MAX);
        let mut reader = RowReader { table: &table.name, topics: &mut self.topics };
        let mut rows = select.raw_query();
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut is_in_time = true;
        while events.len() < limit
            && let Some(row) = rows.next().map_err(from_sqlite)?
        {
            let event = reader.event(row, 0, originator_id)?;
            bytes += event.state.len();
            events.push(event);
            if !bounds.hold(events.len(), bytes) {
                table.reads.remember_long(originator_id, range);
                return Ok(None);
            }
            is_in_time = time.is_none_or(|time| began.elapsed() <= time);
            if !is_in_time || bytes >= max_bytes {
                break;
            }
        }
        if SHORT.hold(events.len(), bytes) {
            table.reads.latency.learn(began.elapsed());
        }
        Ok(is_in_time.then_some(events))
    }

    pub(crate) fn select_notifications(
        &mut self,
        table: &EventTable,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let Some(first) = first_id(selection) else { return Ok(Vec::new()) };
        let statement = match selection.topics.as_slice() {
            [] => &table.select_notifications,
            _ => &table.select_notifications_of_topics,
        };
        let mut select = self.connection.prepare_cached(statement).map_err(from_sqlite)?;
        let last = selection.stop.unwrap_or(i64::MAX);
        for (parameter, value) in [(1, first), (2, last)] {
            select.raw_bind_parameter(parameter, value).map_err(from_sqlite)?;
        }
        if !selection.topics.is_empty() {
            let topics = selection.topics.iter().map(|topic| Value::from(topic.to_string())).collect();
            select.raw_bind_parameter(3, Rc::<Vec<Value>>::new(topics)).map_err(from_sqlite)?;
        }
        let mut reader = RowReader { table: &table.name, topics: &mut self.topics };
        let mut rows = select.raw_query();
        let mut notifications = Vec::new();
        let (mut bytes, max_bytes) = (0, selection.max_bytes.unwrap_or(usize::MAX));
        while notifications.len() < selection.limit
            && let Some(row) = rows.next().map_err(from_sqlite)?
        {
            let id = row.get(0).map_err(from_sqlite)?;
            let originator_id = reader.originator_id(row, 1, id)?;
            let event = reader.event(row, 2, originator_id);
            let event = event.map_err(|error| error.with_context(format_args!("notification {id}")))?;
            bytes = event.state.len().saturating_add(bytes);
            notifications.push(Notification { id, event });
            if bytes >= max_bytes {
                break;
            }
        }
        // Who follows the log must not wait for ever at the end of one that nobody writes any more.
        if notifications.is_empty() {
            self.place.require_unmoved().map_err(from_sqlite)?;
        }
        Ok(notifications)
    }

    pub(crate) fn max_notification_id(&self, table: &EventTable) -> Result<Option<i64>, PersistenceError> {
        self.connection
            .prepare_cached(&table.select_max_id)
            .and_then(|mut select| select.query_row((), |row| row.get(0)))
            .map_err(from_sqlite)
    }

    pub(crate) fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        // The Python library's mark is no application.
        if application_name == Tracking::RESERVED_NAME {
            return Ok(None);
        }
        append::max_tracking_id(&self.connection, application_name).map_err(from_sqlite)
    }
}

/// Starts a thread for each connection; they take jobs until the queue is closed and empty, and then
/// let go of `running`, after the connection.
///
/// # Errors
/// When a thread cannot be started.
pub(crate) fn start(
    connections: Vec<Connection>,
    threads: &Threads,
    running: &mpsc::Sender<()>,
) -> Result<Sender<Job>, PersistenceError> {
    let (sender, receiver) = async_channel::bounded(JOBS_WAITING);
    for connection in connections {
        let jobs: Receiver<Job> = receiver.clone();
        let running = running.clone();
        threads.spawn("es-sqlite-reader", move || {
            let _running = running;
            let mut session = Session::new(connection);
            while let Ok(job) = jobs.recv_blocking() {
                job(&mut session);
            }
        })?;
    }
    Ok(sender)
}

/// The first id to select; nothing when no id can be after the start.
fn first_id(selection: &NotificationSelection) -> Option<i64> {
    match selection.start {
        None => Some(i64::MIN),
        Some(start) if selection.inclusive_of_start => Some(start),
        Some(start) => start.checked_add(1),
    }
}

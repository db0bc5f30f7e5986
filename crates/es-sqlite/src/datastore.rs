//! One open database: its connections, its threads, and the way to them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use async_channel::Sender;
use es_core::{
    ConsumerError, ErrorKind, EventRange, NotificationBatch, PersistenceError, StoredEvent, Tracking,
    uuid::Uuid,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::{coop::consume_budget, yield_now},
};

use crate::{
    SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteOptions, SqliteProcessRecorder,
    SqliteTrackingRecorder,
    connection::{
        busy::wait_for_lock,
        open::Connections,
        threads::{Ended, Threads},
    },
    error::name_database,
    follow::signals::Signals,
    limits::Pace,
    projection::job::{Handler, Projecting},
    read::{
        inline::InlineReader,
        select::{self as reader, Job, Session},
    },
    schema::{tables as schema, tables::EventTable},
    write::{
        committer::{self, Command, Committer, Outcome, Request, weight},
        inline::Soloist,
        queue::{CallWhenDropped, OwnedQueue, Queue},
        worker::{SharedCommitter, Writer},
    },
};
#[cfg(feature = "sqlx")]
use crate::{connection::file_identity::Place, error::from_sqlite};

/// One open database, shared by the recorders made from it.
///
/// Cloning gives another handle to the same database. When the last handle is gone, recorders
/// included, what was accepted is finished in the background and the database is closed.
///
/// ```
/// # use es_core::PersistenceError;
/// use es_sqlite::SqliteOptions;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), PersistenceError> {
/// let datastore = SqliteOptions::new(":memory:").open().await?;
/// let events = datastore.application_recorder().await?;
/// let snapshots = datastore.aggregate_recorder("snapshots").await?;
/// # let _ = (events, snapshots);
/// datastore.close().await
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteDatastore(Arc<Shared>);

struct Shared {
    path: PathBuf,
    create_table: bool,
    /// Dropped before the writer is told to end, whose connection is the last one and tidies up.
    inline_reader: InlineReader,
    /// For transactions that the program runs itself.
    #[cfg(feature = "sqlx")]
    place: Option<Place>,
    queue: OwnedQueue<Command>,
    /// For commits on the callers' threads; nothing where there may be none.
    inline_commits: Option<SharedCommitter>,
    pace: Arc<Pace>,
    soloist: Soloist,
    /// Bytes of events that may still be accepted; closed with the datastore.
    room: Arc<Semaphore>,
    queue_bytes: u32,
    lock_timeout: Duration,
    /// The queue of the reader threads; nothing when the writer's connection is the only one.
    jobs: Option<Sender<Job>>,
    signals: Signals,
    ended: Ended,
}

impl SqliteDatastore {
    pub(crate) async fn open(options: SqliteOptions) -> Result<Self, PersistenceError> {
        let threads = Threads::new();
        let (reply, opened) = oneshot::channel();
        let queue = OwnedQueue(Arc::new(Queue::new()));
        let signals = Signals::new({
            let queue = Arc::clone(&queue.0);
            move || {
                // When nobody receives it, the datastore is closed already.
                let _ = queue.push(Command::Watch);
                queue.call();
            }
        });
        let pace = Arc::new(Pace::new(committer::LIMIT));
        let (running, readers_running) = mpsc::channel();
        let SqliteOptions { database: path, create_table, queue_bytes, lock_timeout, .. } = options.clone();
        let (writer_queue, writer_signals, writer_pace) =
            (Arc::clone(&queue.0), signals.clone(), Arc::clone(&pace));
        threads.spawn("es-sqlite-writer", move || {
            let connections = match Connections::open(&options) {
                Ok(connections) => connections,
                Err(error) => return drop(reply.send(Err(error))),
            };
            let Connections { writer, readers, inline, is_undisturbed } = connections;
            let committer = Committer::new(
                writer,
                Arc::clone(&writer_queue),
                writer_signals.clone(),
                writer_pace,
                is_undisturbed,
                &options,
            );
            let writer = Writer::new(committer, writer_queue, readers_running, writer_signals, &options);
            let inline_commits = (options.inline_commits && is_undisturbed).then(|| writer.committer());
            if reply.send(Ok((readers, inline, writer.committer(), inline_commits))).is_ok() {
                writer.run();
            }
        })?;
        let (readers, inline, committer, inline_commits) =
            opened.await.unwrap_or_else(|_| Err(thread_lost()))?;
        #[cfg(feature = "sqlx")]
        let place = inline.as_ref().map(Place::of);
        let inline_reader = match inline {
            Some(connection) => InlineReader::on(connection),
            None => InlineReader::Writing(committer),
        };
        let jobs = if readers.is_empty() { None } else { Some(reader::start(readers, &threads, &running)?) };
        let queue_bytes = queue_bytes.get().min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let room = Arc::new(Semaphore::new(queue_bytes as usize));
        let ended = threads.ended();
        let shared = Shared {
            path,
            create_table,
            inline_reader,
            #[cfg(feature = "sqlx")]
            place,
            queue,
            inline_commits,
            pace,
            soloist: Soloist::default(),
            room,
            queue_bytes,
            lock_timeout,
            jobs,
            signals,
            ended,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// A recorder of events in a table of their own, `stored_` and the purpose: `"events"` or
    /// `"snapshots"` by convention. Its events have no notification ids.
    ///
    /// # Errors
    /// [`Programming`](ErrorKind::Programming) when the purpose is empty or has other characters
    /// than letters, digits, `_`, `-` and `.`; when the table cannot be created.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn aggregate_recorder(
        &self,
        purpose: &str,
    ) -> Result<SqliteAggregateRecorder, PersistenceError> {
        let table = self.events_table(EventTable::for_purpose(purpose)?).await?;
        Ok(SqliteAggregateRecorder::new(self.clone(), table))
    }

    /// A recorder of an application's events, in the table `stored_events`.
    ///
    /// # Errors
    /// When the table cannot be created.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn application_recorder(&self) -> Result<SqliteApplicationRecorder, PersistenceError> {
        let table = self.events_table(EventTable::of_application()).await?;
        Ok(SqliteApplicationRecorder::new(self.clone(), table))
    }

    /// A recorder of an application's events and of its tracking records, in the tables
    /// `stored_events` and `tracking`.
    ///
    /// # Errors
    /// When the tables cannot be created.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn process_recorder(&self) -> Result<SqliteProcessRecorder, PersistenceError> {
        let table = self.events_table(EventTable::of_application()).await?;
        self.create_tracking_table().await?;
        Ok(SqliteProcessRecorder::new(self.clone(), table))
    }

    /// A recorder of tracking records alone, in the table `tracking`.
    ///
    /// # Errors
    /// When the table cannot be created.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn tracking_recorder(&self) -> Result<SqliteTrackingRecorder, PersistenceError> {
        self.create_tracking_table().await?;
        // Nothing is ever recorded in this table; a request names one.
        Ok(SqliteTrackingRecorder::new(self.clone(), Arc::new(EventTable::of_application())))
    }

    /// The database, as it was named when it was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Waits for accepted writes, then closes the database, for all recorders that share it.
    ///
    /// Later calls of other methods, and of the recorders', fail with an
    /// [`Interface`](ErrorKind::Interface) error. Closing again succeeds.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the closing.
    pub async fn close(&self) -> Result<(), PersistenceError> {
        // First: those who follow end in order, without meeting a closed database.
        self.0.signals.close();
        self.0.room.close();
        self.0.inline_reader.close();
        if let Some(jobs) = &self.0.jobs {
            jobs.close();
        }
        self.0.queue.0.close();
        self.0.ended.clone().wait().await;
        Ok(())
    }

    /// Fails when the database no longer stands under its name.
    #[cfg(feature = "sqlx")]
    pub(crate) fn require_unmoved(&self) -> Result<(), PersistenceError> {
        let Some(place) = &self.0.place else { return Ok(()) };
        place.require_unmoved().map_err(|error| self.name(from_sqlite(error)))
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// Appends events and a tracking record as one, in a group with others.
    pub(crate) async fn append(
        &self,
        table: &Arc<EventTable>,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Outcome {
        let permit = self.place_in_queue(weight(&events)).await?;
        if events.is_empty() && tracking.is_none() {
            return Ok(Vec::new());
        }
        let (reply, outcome) = oneshot::channel();
        let request = Request { table: Arc::clone(table), events, tracking, reply, permit };
        let is_short = request.is_short();
        self.push(Command::Append(request))?;
        // Also when this future is dropped meanwhile: what was accepted waits for nobody to poll it.
        let left_over = CallWhenDropped(&*self.0.queue.0);
        if is_short && self.0.pace.is_short() {
            self.inline_commits().await;
        }
        drop(left_over);
        outcome.await.unwrap_or_else(|_| Err(outcome_lost())).map_err(|error| self.name(error))
    }

    /// The events of an aggregate, at once where that can be had.
    pub(crate) async fn select_events(
        &self,
        table: &Arc<EventTable>,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        consume_budget().await;
        if let Some(events) = self.0.inline_reader.select_events(table, originator_id, range) {
            return Ok(events);
        }
        let table = Arc::clone(table);
        self.read(move |session| session.select_events(&table, originator_id, range)).await
    }

    /// Reads on a thread and a connection that are free.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let Some(jobs) = &self.0.jobs else { return self.run_on_writer(read).await };
        let (job, result) = job(move |session: &mut Session| session.read(read));
        jobs.send(job).await.map_err(|_| self.closed())?;
        result.await.unwrap_or_else(|_| Err(thread_lost())).map_err(|error| self.name(error))
    }

    /// Handles notifications and records the position as one, on the writer's connection; returns how
    /// many were handled.
    pub(crate) async fn project(
        &self,
        table: &Arc<EventTable>,
        batch: NotificationBatch<'_>,
        handler: Handler,
    ) -> Result<usize, ConsumerError> {
        let NotificationBatch { application_name, notifications, position, expected_position } = batch;
        let events = notifications.iter().map(|notification| &notification.event);
        let permit = self.place_in_queue(weight(events)).await?;
        let (reply, outcome) = oneshot::channel();
        let work = Projecting {
            application_name: application_name.to_owned(),
            notifications: notifications.to_vec(),
            position,
            expected_position,
            handler,
            table: Arc::clone(table),
            reply,
            permit,
        };
        self.push(Command::Project(work))?;
        self.0.queue.0.call();
        let outcome = outcome.await.unwrap_or_else(|_| Err(outcome_lost().into()));
        outcome.map_err(|failure| match failure {
            ConsumerError::Recording(error) => ConsumerError::Recording(self.name(error)),
            of_a_handler => of_a_handler,
        })
    }

    /// Does something on the writer's connection, between groups.
    pub(crate) async fn run_on_writer<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let place = self.place_in_queue(weight([])).await?;
        let lock_timeout = self.0.lock_timeout;
        let (job, result) = job(move |session: &mut Session| {
            let _place = place;
            wait_for_lock(lock_timeout, PersistenceError::is_transient, || work(session))
        });
        self.push(Command::Run(job))?;
        self.0.queue.0.call();
        result.await.unwrap_or_else(|_| Err(thread_lost())).map_err(|error| self.name(error))
    }

    /// Commits what waits, unless another call or connection is in the way.
    async fn inline_commits(&self) {
        let Some(committer) = &self.0.inline_commits else { return };
        let mut gave_way = None;
        if !self.0.soloist.goes_on() {
            // Others whose requests belong into the same commit may be about to make them. In a runtime
            // other than Tokio's, this wakes the task at once.
            yield_now().await;
            gave_way = Some(Instant::now());
        }
        if let Ok(mut committer) = committer.try_lock()
            && let Some(committer) = committer.as_mut()
        {
            let written = committer.write_at_once();
            self.0.soloist.has_written(written, gave_way);
        }
    }

    fn push(&self, command: Command) -> Result<(), PersistenceError> {
        self.0.queue.0.push(command).map_err(|_| self.closed())
    }

    /// Room in the writer's queue, to be held until the request is done.
    async fn place_in_queue(&self, bytes: usize) -> Result<OwnedSemaphorePermit, PersistenceError> {
        // A request of more than the queue holds waits until it has the queue to itself.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0.queue_bytes);
        if self.0.room.available_permits() < bytes as usize {
            // Room must not depend on a call that nobody polls.
            self.0.queue.0.call();
        }
        Arc::clone(&self.0.room).acquire_many_owned(bytes).await.map_err(|_| self.closed())
    }

    async fn events_table(&self, table: EventTable) -> Result<Arc<EventTable>, PersistenceError> {
        let table = Arc::new(table);
        if self.0.create_table {
            let table = Arc::clone(&table);
            self.run_on_writer(move |session| schema::create_events(&mut session.connection, &table)).await?;
        }
        Ok(table)
    }

    async fn create_tracking_table(&self) -> Result<(), PersistenceError> {
        if !self.0.create_table {
            return Ok(());
        }
        self.run_on_writer(|session| schema::create_tracking(&mut session.connection)).await
    }

    /// Names this database in an error that is about it.
    fn name(&self, error: PersistenceError) -> PersistenceError {
        name_database(&self.0.path, error)
    }

    fn closed(&self) -> PersistenceError {
        PersistenceError::interface(format!("database {:?} is closed", self.0.path))
    }
}

impl fmt::Debug for SqliteDatastore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteDatastore").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// A job that hands back what `work` results in.
fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T, PersistenceError>>) {
    let (reply, result) = oneshot::channel();
    let job = move |session: &mut Session| {
        // Nobody waits any more when the caller's future was dropped.
        if reply.is_closed() {
            return;
        }
        let reply = Arc::new(reply);
        let asked = Arc::clone(&reply);
        let result = session.unless(move || asked.is_closed(), work);
        if let Some(reply) = Arc::into_inner(reply) {
            let _ = reply.send(result);
        }
    };
    (Box::new(job), result)
}

fn thread_lost() -> PersistenceError {
    PersistenceError::internal("a thread of the database ended without a result")
}

fn outcome_lost() -> PersistenceError {
    PersistenceError::new(ErrorKind::OutcomeUnknown, "the writer thread ended without a result")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

    use es_core::{AggregateRecorder, Bytes, Topic};

    use super::*;

    /// Reads of a database in memory took the way to the writer thread and back.
    #[tokio::test]
    async fn a_database_in_memory_is_read_on_the_caller_s_thread() {
        let datastore = SqliteOptions::new(":memory:").inline_commits(false).open().await.unwrap();
        let recorder = datastore.application_recorder().await.unwrap();
        let event = StoredEvent {
            originator_id: Uuid::from_u128(1),
            originator_version: 1,
            topic: Topic::from_static("bank:Account.Opened"),
            state: Bytes::from_static(b"{}"),
        };
        recorder.insert_events(vec![event.clone()]).await.unwrap();
        let all = EventRange::all();
        // Until the reads so far show that they are short: a busy machine has its say.
        for _ in 0..100_000 {
            let read = datastore.0.inline_reader.select_events(&recorder.table, event.originator_id, all);
            if let Some(found) = read {
                assert_eq!(found, [event]);
                return;
            }
            assert_eq!(recorder.select_events(event.originator_id, all).await.unwrap().len(), 1);
        }
        panic!("no read was made on the caller's thread");
    }
}

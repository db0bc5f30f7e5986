//! An open database: its connections, its threads, and the ways to use them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use async_channel::Sender;
use es_core::{ErrorKind, EventRange, PersistenceError, StoredEvent, Tracking, uuid::Uuid};
use rusqlite::Connection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::coop::consume_budget,
};

#[cfg(feature = "sqlx")]
use crate::connection::file_identity::FileIdentity;
use crate::{
    connection::{Connections, Job, Session, Threads, job, retry_while_busy},
    error::{catch_panic, from_sqlite, name_database},
    follow::Signals,
    lifecycle::Lifecycle,
    options::SqliteOptions,
    read::{InlineReader, ReadStats, pool},
    schema::EventTable,
    write::{
        Command, Committer, InlineCommits, Outcome, OwnedQueue, Queue, Request, WakeOnDrop, Worker,
        queued_size,
    },
};

/// An open database, shared by the recorders made from it.
///
/// Cloning returns another handle to the same database. When the last handle is dropped, recorders included,
/// accepted writes are finished in the background and the database is closed.
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
    /// Dropped before the queue is closed, so that the writer's connection is the last one and makes the
    /// checkpoint.
    inline_reader: InlineReader,
    /// For transactions that the program runs itself.
    #[cfg(feature = "sqlx")]
    file_identity: Option<FileIdentity>,
    queue: OwnedQueue<Command>,
    inline_commits: Option<InlineCommits>,
    /// The bytes of events that may still be accepted; closed with the datastore.
    queue_budget: Arc<Semaphore>,
    queue_bytes: u32,
    lock_timeout: Duration,
    /// The queue of the reader threads; `None` if the writer's connection is the only one.
    jobs: Option<Sender<Job>>,
    signals: Signals,
    threads: Threads,
}

impl SqliteOptions {
    /// Opens the database and starts its threads.
    ///
    /// A file is switched to SQLite's write-ahead log, in which readers and the writer do not block each
    /// other. A file that cannot be written is opened for reading; then recording fails.
    ///
    /// Reading needs the two files of the log. The first connection to the database creates them, and the
    /// last one removes them. If they are missing and cannot be created, as on a read-only file system, open
    /// `file:events.db?immutable=1`: but only a file that no process writes meanwhile.
    ///
    /// # Errors
    /// [`Database`](es_core::ErrorKind::Database) if the file is not a database;
    /// [`Operational`](es_core::ErrorKind::Operational) if it cannot be opened, or is locked for longer than
    /// the timeout.
    ///
    /// # Cancel safety
    /// Cancel safe: what was opened is closed.
    pub async fn open(self) -> Result<SqliteDatastore, PersistenceError> {
        let threads = Threads::default();
        let (reply, opened) = oneshot::channel();
        let queue = OwnedQueue(Arc::new(Queue::new()));
        let signals = Signals::new({
            let queue = Arc::clone(&queue.0);
            move || {
                // If the queue is closed, so is the datastore.
                let _ = queue.push(Command::StartPolling);
                queue.wake_worker();
            }
        });
        let (running, readers_running) = mpsc::channel();
        let Self { database: path, create_table, queue_bytes, lock_timeout, .. } = self.clone();
        let (writer_queue, writer_signals) = (Arc::clone(&queue.0), signals.clone());
        threads.spawn("es-sqlite-writer", move || {
            let connections = match Connections::open(&self) {
                Ok(connections) => connections,
                Err(error) => return drop(reply.send(Err(error))),
            };
            let Connections { writer, readers, inline, is_contention_free } = connections;
            let committer = Committer::new(writer, writer_queue, writer_signals, is_contention_free, &self);
            let latency = Arc::clone(&committer.latency);
            let worker = Worker::new(committer, readers_running, self.poll_interval);
            let committer = Arc::clone(&worker.committer);
            let inline_commits = (self.inline_commits && is_contention_free)
                .then(|| InlineCommits::new(Arc::clone(&committer), latency));
            if reply.send(Ok((readers, inline, committer, inline_commits))).is_ok() {
                worker.run();
            }
        })?;
        let (readers, inline, committer, inline_commits) =
            opened.await.unwrap_or_else(|_| Err(thread_lost()))?;
        #[cfg(feature = "sqlx")]
        let file_identity = inline.as_ref().map(FileIdentity::of);
        let inline_reader = match inline {
            Some(connection) => InlineReader::new(connection),
            None => InlineReader::Writing(committer),
        };
        let jobs = if readers.is_empty() { None } else { Some(pool::start(readers, &threads, &running)?) };
        let queue_bytes = queue_bytes.get().min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let shared = Shared {
            path,
            create_table,
            inline_reader,
            #[cfg(feature = "sqlx")]
            file_identity,
            queue,
            inline_commits,
            queue_budget: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            lock_timeout,
            jobs,
            signals,
            threads,
        };
        Ok(SqliteDatastore(Arc::new(shared)))
    }
}

impl SqliteDatastore {
    /// Returns the name with which the database was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Closes the database and all its recorders, after their accepted writes.
    ///
    /// Later calls of other methods, and of the recorders', fail with an [`Interface`](ErrorKind::Interface)
    /// error. A second close succeeds.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Cancel safety
    /// Cancel safe: the database is closed in the background.
    pub async fn close(&self) -> Result<(), PersistenceError> {
        // First, so that subscriptions end without errors of a closed database.
        self.0.signals.close();
        self.0.queue_budget.close();
        self.0.inline_reader.close();
        if let Some(jobs) = &self.0.jobs {
            jobs.close();
        }
        self.0.queue.0.close();
        self.0.threads.ended().await;
        Ok(())
    }

    /// Runs queries of the program's own, for example on the tables of a
    /// [projection](crate::SqliteProjection), on the connection of a reader thread. They cannot write.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// # use es_sqlite::SqliteOptions;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), PersistenceError> {
    /// let datastore = SqliteOptions::new(":memory:").open().await?;
    /// let answer: i64 =
    ///     datastore.read_with(|connection| connection.query_row("SELECT 42", (), |row| row.get(0))).await?;
    /// assert_eq!(answer, 42);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// `read` may be called again if SQLite refuses a statement. Leave the settings of the connection
    /// unchanged.
    ///
    /// # Errors
    /// The error of `read`, or its panic; [`Interface`](ErrorKind::Interface) if the database is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: SQLite interrupts the query.
    pub async fn read_with<T: Send + 'static>(
        &self,
        read: impl Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let read = move |connection: &Connection| catch_panic(|| read(connection))?.map_err(from_sqlite);
        if self.0.jobs.is_some() {
            return self.read(move |session| read(&session.connection)).await;
        }
        // The writer's connection is the only one.
        self.run_on_writer(move |Session { connection, .. }| {
            connection.pragma_update(None, "query_only", true).map_err(from_sqlite)?;
            let result = read(connection);
            connection.pragma_update(None, "query_only", false).map_err(from_sqlite)?;
            result
        })
        .await
    }

    /// Fails if the file of the database was moved, deleted or replaced.
    #[cfg(feature = "sqlx")]
    pub(crate) fn verify_unchanged(&self) -> Result<(), PersistenceError> {
        let Some(file_identity) = &self.0.file_identity else { return Ok(()) };
        file_identity.verify_unchanged().map_err(|error| self.with_name(from_sqlite(error)))
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    /// Appends events and a tracking record as one, in a group with other requests.
    pub(crate) async fn append(
        &self,
        table: &Arc<EventTable>,
        lifecycle: &Arc<Lifecycle>,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Outcome {
        lifecycle.check_open()?;
        let permit = self.acquire_permit(queued_size(&events)).await?;
        StoredEvent::verify_unique_versions(&events)?;
        if events.is_empty() && tracking.is_none() {
            return Ok(Vec::new());
        }
        let (reply, outcome) = oneshot::channel();
        let pending = lifecycle.accept()?;
        let request = Request { table: Arc::clone(table), events, tracking, reply, permit, pending };
        let inline_commits = self.0.inline_commits.as_ref().filter(|inline| inline.accepts(&request));
        self.push(Command::Append(request))?;
        // Also if this future is dropped: an accepted request does not depend on its polls.
        let wake = WakeOnDrop(&*self.0.queue.0);
        if let Some(inline_commits) = inline_commits {
            inline_commits.commit().await;
        }
        drop(wake);
        outcome.await.unwrap_or_else(|_| Err(outcome_lost())).map_err(|error| self.with_name(error))
    }

    /// Returns the events of an aggregate, read inline if possible.
    ///
    /// A read takes from the cooperative budget of the task, so that a task that only reads yields after 128
    /// reads.
    pub(crate) async fn select_events(
        &self,
        table: &Arc<EventTable>,
        stats: &Arc<ReadStats>,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        consume_budget().await;
        if let Some(events) = self.0.inline_reader.select_events(stats, table, originator_id, range) {
            return Ok(events);
        }
        let (table, stats) = (Arc::clone(table), Arc::clone(stats));
        self.read(move |session| stats.measure(|| session.select_events(&table, originator_id, range))).await
    }

    /// Reads on an idle thread and connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let Some(jobs) = &self.0.jobs else { return self.run_on_writer(read).await };
        let (job, result) = job(move |session: &mut Session| session.read(read));
        jobs.send(job).await.map_err(|_| self.closed())?;
        result.await.unwrap_or_else(|_| Err(thread_lost())).map_err(|error| self.with_name(error))
    }

    /// Runs work on the writing connection, between groups.
    pub(crate) async fn run_on_writer<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let permit = self.acquire_permit(queued_size([])).await?;
        let lock_timeout = self.0.lock_timeout;
        let (job, result) = job(move |session: &mut Session| {
            let _permit = permit;
            retry_while_busy(lock_timeout, PersistenceError::is_transient, || work(session))
        });
        self.submit(Command::Run(job))?;
        result.await.unwrap_or_else(|_| Err(thread_lost())).map_err(|error| self.with_name(error))
    }

    /// Creates a table, unless the recorder or else the options say not to.
    pub(crate) async fn create_table(
        &self,
        is_created: Option<bool>,
        create: impl Fn(&mut Connection) -> Result<(), PersistenceError> + Send + 'static,
    ) -> Result<(), PersistenceError> {
        if !is_created.unwrap_or(self.0.create_table) {
            return Ok(());
        }
        self.run_on_writer(move |session| create(&mut session.connection)).await
    }

    /// Queues a command and wakes the writer thread.
    pub(crate) fn submit(&self, command: Command) -> Result<(), PersistenceError> {
        self.push(command)?;
        self.wake_worker();
        Ok(())
    }

    pub(crate) fn wake_worker(&self) {
        self.0.queue.0.wake_worker();
    }

    fn push(&self, command: Command) -> Result<(), PersistenceError> {
        self.0.queue.0.push(command).map_err(|_| self.closed())
    }

    /// Acquires a share of the queue budget, to be held until the request is done.
    pub(crate) async fn acquire_permit(
        &self,
        bytes: usize,
    ) -> Result<OwnedSemaphorePermit, PersistenceError> {
        // A request larger than the budget waits until it has the whole budget.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0.queue_bytes);
        if self.0.queue_budget.available_permits() < bytes as usize {
            // The queue must not wait for an inline commit whose future is not polled.
            self.wake_worker();
        }
        Arc::clone(&self.0.queue_budget).acquire_many_owned(bytes).await.map_err(|_| self.closed())
    }

    /// Names this database in an error that concerns it.
    pub(crate) fn with_name(&self, error: PersistenceError) -> PersistenceError {
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

fn thread_lost() -> PersistenceError {
    PersistenceError::internal("a thread of the database ended without a result")
}

/// Returns the error of a write whose writer thread ended.
pub(crate) fn outcome_lost() -> PersistenceError {
    PersistenceError::new(ErrorKind::OutcomeUnknown, "the writer thread ended without a result")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test unwraps the values that it expects")]

    use es_core::{Bytes, Topic};

    use super::*;
    use crate::schema::tables;

    /// Reads of a database in memory went through the writer thread.
    #[tokio::test]
    async fn a_database_in_memory_is_read_inline() {
        let datastore = SqliteOptions::new(":memory:").inline_commits(false).open().await.unwrap();
        let (table, stats) = (Arc::new(EventTable::of_application()), Arc::default());
        let lifecycle = Arc::new(Lifecycle::new(datastore.signals()));
        let created = Arc::clone(&table);
        datastore
            .create_table(None, move |connection| tables::create_events(connection, &created))
            .await
            .unwrap();
        let event = StoredEvent {
            originator_id: Uuid::from_u128(1),
            originator_version: 1,
            topic: Topic::from_static("bank:Account.Opened"),
            state: Bytes::from_static(b"{}"),
        };
        datastore.append(&table, &lifecycle, vec![event.clone()], None).await.unwrap();
        let (id, all) = (event.originator_id, EventRange::all());
        // Inline reads begin when the reads before were short, which may take long on a busy machine.
        for _ in 0..100_000 {
            if let Some(found) = datastore.0.inline_reader.select_events(&stats, &table, id, all) {
                assert_eq!(found, [event]);
                return;
            }
            assert_eq!(datastore.select_events(&table, &stats, id, all).await.unwrap().len(), 1);
        }
        panic!("no read was inline");
    }
}

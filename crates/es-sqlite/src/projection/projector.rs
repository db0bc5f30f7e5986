//! Projections: tables of the program's own, written in the transaction that records the position.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use es_core::{
    ConsumerError, HandlerError, Notification, NotificationBatch, NotificationConsumer, PersistenceError,
};
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    SqliteDatastore, SqliteProcessRecorder, SqliteTrackingRecorder,
    error::from_sqlite,
    projection::job::{Handler, unwinding},
};

/// Writes what notifications mean into tables of the program's own, in the transaction in which the
/// position is recorded: each notification's effect is there exactly once, whatever interrupts.
///
/// It runs on the thread that does all writing to the database: **nothing else is written meanwhile**,
/// by this process or by another. Do what SQL does, and nothing else: no reading of files or networks,
/// no waiting, and no call of the datastore's own recorders, for which this thread would wait for
/// itself. After 100 ms a transaction takes no more notifications.
///
/// The transaction is rusqlite's (`es_sqlite::rusqlite`). [`prepare_cached`] spares preparing the same
/// statement for each notification. A savepoint within it is fine. Leave it open, and the connection as
/// it is: settings that are changed stay so for all who write, and a projection that ends the
/// transaction, or panics, has failed, with nothing recorded.
///
/// Programs read their tables through connections of their own, on the same file.
///
/// ```
/// use es_core::Notification;
/// use es_sqlite::{SqliteProjection, rusqlite};
/// use rusqlite::Transaction;
///
/// /// How often each kind of event has happened.
/// struct Counts;
///
/// impl SqliteProjection for Counts {
///     type Error = rusqlite::Error;
///
///     fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), rusqlite::Error> {
///         transaction.execute_batch(
///             "CREATE TABLE IF NOT EXISTS counts (topic TEXT PRIMARY KEY, events INTEGER NOT NULL)",
///         )
///     }
///
///     fn project(
///         &mut self,
///         transaction: &Transaction<'_>,
///         notification: &Notification,
///     ) -> Result<(), rusqlite::Error> {
///         let mut count = transaction.prepare_cached(
///             "INSERT INTO counts VALUES (?1, 1) ON CONFLICT DO UPDATE SET events = events + 1",
///         )?;
///         count.execute((notification.event.topic.as_str(),)).map(drop)
///     }
/// }
/// ```
///
/// [`prepare_cached`]: rusqlite::Connection::prepare_cached
pub trait SqliteProjection: Send + 'static {
    /// Why a notification cannot be projected.
    type Error: Into<HandlerError>;

    /// Creates what is missing of the projection's tables. Called when a projector is made, in a
    /// transaction of its own, by each process: `CREATE TABLE IF NOT EXISTS`. By default it does
    /// nothing.
    ///
    /// # Errors
    /// Then there is no projector, and nothing of it is kept.
    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), Self::Error> {
        let _ = transaction;
        Ok(())
    }

    /// Writes what a notification means.
    ///
    /// Several notifications may share a transaction, each seeing what those before it have written.
    /// What is kept in `self` does not follow the transaction when it is rolled back.
    ///
    /// # Errors
    /// Then nothing of the transaction is kept. A deferred constraint that is violated when it commits
    /// counts as an error too, of the last notification.
    fn project(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), Self::Error>;

    /// Gives up on a notification that failed for the last time: writes what is to be kept of it, such
    /// as a row in a table of failures, so that those after it can be projected.
    ///
    /// By default it returns the failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another.
    fn park(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        let _ = (transaction, notification);
        Err(failure)
    }
}

/// Records the effects of a [`SqliteProjection`] together with the position: a [`NotificationConsumer`] for a
/// processor of the crate `es-process`.
///
/// Made by [`SqliteTrackingRecorder::projector`] and [`SqliteProcessRecorder::projector`].
pub struct SqliteProjector<P> {
    recorder: SqliteTrackingRecorder,
    /// Locked by the writer thread alone, and for nobody.
    projection: Arc<Mutex<P>>,
}

impl SqliteTrackingRecorder {
    /// A projector that records its position here, having [set up](SqliteProjection::set_up) the
    /// projection.
    ///
    /// ```
    /// use es_process::Processor;
    /// use es_sqlite::{SqliteOptions, SqliteProjection};
    ///
    /// # async fn example(
    /// #     upstream: es_sqlite::SqliteApplicationRecorder,
    /// #     counts: impl SqliteProjection,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let positions = SqliteOptions::new("counts.db").open().await?.tracking_recorder().await?;
    /// let projector = positions.projector(counts).await?;
    /// Processor::with_consumer("bank", upstream, projector).run().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the projection cannot be set up, with its
    /// own error as the source; when the database cannot be written.
    ///
    /// # Cancel safety
    /// When the future is dropped, the projection is set up, or it is not.
    pub async fn projector<P: SqliteProjection>(
        &self,
        projection: P,
    ) -> Result<SqliteProjector<P>, PersistenceError> {
        let projection = Arc::new(Mutex::new(projection));
        let projector = SqliteProjector { recorder: self.clone(), projection: Arc::clone(&projection) };
        self.datastore
            .run_on_writer(move |session| set_up(&mut session.connection, &mut *lock(&projection)))
            .await?;
        Ok(projector)
    }
}

impl SqliteProcessRecorder {
    /// A projector that records its position here; see [`SqliteTrackingRecorder::projector`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn projector<P: SqliteProjection>(
        &self,
        projection: P,
    ) -> Result<SqliteProjector<P>, PersistenceError> {
        let (datastore, table) = (self.datastore.clone(), Arc::clone(&self.table));
        SqliteTrackingRecorder { datastore, table }.projector(projection).await
    }
}

impl<P: SqliteProjection> SqliteProjector<P> {
    fn datastore(&self) -> &SqliteDatastore {
        &self.recorder.datastore
    }

    async fn project(&self, batch: NotificationBatch<'_>, handler: Handler) -> Result<usize, ConsumerError> {
        self.datastore().project(&self.recorder.table, batch, handler).await
    }
}

impl<P: SqliteProjection> NotificationConsumer for SqliteProjector<P> {
    type Recorder = SqliteTrackingRecorder;

    fn recorder(&self) -> &SqliteTrackingRecorder {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let projection = Arc::clone(&self.projection);
        let project = move |transaction: &Transaction<'_>, notification: &Notification| {
            lock(&projection).project(transaction, notification).map_err(Into::into)
        };
        self.project(batch, Box::new(project)).await
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        let projection = Arc::clone(&self.projection);
        let mut failure = Some(failure);
        let park = move |transaction: &Transaction<'_>, notification: &Notification| {
            // A batch to give up on has one notification.
            let Some(failure) = failure.take() else { return Ok(()) };
            lock(&projection).park(transaction, notification, failure)
        };
        self.project(batch, Box::new(park)).await.map(drop)
    }
}

impl<P> fmt::Debug for SqliteProjector<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteProjector").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

fn set_up(
    connection: &mut Connection,
    projection: &mut impl SqliteProjection,
) -> Result<(), PersistenceError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
    unwinding(|| projection.set_up(&transaction).map_err(Into::into)).map_err(|error| {
        PersistenceError::programming("the projection cannot be set up").with_source(error)
    })?;
    transaction.commit().map_err(from_sqlite)
}

/// A projection that has panicked is called again all the same, or not, as its owner likes.
fn lock<P>(projection: &Mutex<P>) -> MutexGuard<'_, P> {
    projection.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The public API of projections.

use std::{fmt, sync::Arc};

use es_core::{
    ConsumerError, HandlerError, Notification, NotificationBatch, NotificationConsumer, PersistenceError,
};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::job::{Handler, ProjectionJob};
use crate::{
    datastore::outcome_lost,
    error::{catch_panic, from_sqlite},
    recorder::{SqliteProcessRecorder, SqliteTrackingRecorder, Store},
    write::{Command, queued_size},
};

/// Writes the effects of notifications into the program's own tables, in the transaction that records the
/// position: exactly once for each notification, despite crashes and errors.
///
/// A projection runs on the writer thread: **nothing else is written meanwhile**, by this process or by
/// another. Execute SQL and nothing else: no reading of files or networks, no waiting, and no call of the
/// datastore's own recorders, which would deadlock. After 100 ms a transaction takes no more notifications.
///
/// The transaction is rusqlite's (`es_sqlite::rusqlite`). [`prepare_cached`] avoids preparing the same
/// statement for each notification. Savepoints are allowed. Leave the transaction open, and the settings of
/// the connection unchanged: they would apply to all writes. A projection that ends the transaction, or
/// panics, has failed, with nothing recorded.
///
/// Programs read their tables through their own connections to the same file.
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
    /// The error of a projection.
    type Error: Into<HandlerError>;

    /// Creates the missing tables of the projection (`CREATE TABLE IF NOT EXISTS`). Each process calls it
    /// when a projector is made, in a transaction of its own. By default it does nothing.
    ///
    /// # Errors
    /// If it fails, the transaction is rolled back and no projector is made.
    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), Self::Error> {
        let _ = transaction;
        Ok(())
    }

    /// Writes the effect of a notification.
    ///
    /// Several notifications may share a transaction, and see the writes of those before them. State in
    /// `self` is not rolled back with the transaction.
    ///
    /// # Errors
    /// If it fails, the transaction is rolled back. A deferred constraint that is violated by the commit
    /// counts as an error of the last notification.
    fn project(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), Self::Error>;

    /// Parks a notification that failed for the last time: records it, for example in a table of failures, so
    /// that later notifications can be projected.
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

/// Records the effects of a [`SqliteProjection`] together with the position. It is a [`NotificationConsumer`]
/// for a processor of the crate `es-process`.
///
/// Made by [`SqliteTrackingRecorder::projector`] and [`SqliteProcessRecorder::projector`].
pub struct SqliteProjector<P> {
    recorder: SqliteTrackingRecorder,
    /// Only the writer thread locks it, so that there is no contention.
    projection: Arc<Mutex<P>>,
}

impl SqliteTrackingRecorder {
    /// [Sets up](SqliteProjection::set_up) a projection and returns a projector that records its position
    /// here.
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
    /// Processor::with_consumer("counts", upstream, projector).run().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the projection cannot be set up, with its own
    /// error as the source; if the database cannot be written.
    ///
    /// # Cancel safety
    /// Cancel safe: either the projection is set up or it is not.
    pub async fn projector<P: SqliteProjection>(
        &self,
        projection: P,
    ) -> Result<SqliteProjector<P>, PersistenceError> {
        self.0.lifecycle.check_open()?;
        let projection = Arc::new(Mutex::new(projection));
        let projector = SqliteProjector { recorder: self.clone(), projection: Arc::clone(&projection) };
        self.0
            .datastore
            .run_on_writer(move |session| set_up(&mut session.connection, &mut *projection.lock()))
            .await?;
        Ok(projector)
    }
}

impl SqliteProcessRecorder {
    /// Returns a projector that records its position here; see [`SqliteTrackingRecorder::projector`].
    ///
    /// # Errors
    /// As [`SqliteTrackingRecorder::projector`].
    ///
    /// # Cancel safety
    /// Cancel safe: either the projection is set up or it is not.
    pub async fn projector<P: SqliteProjection>(
        &self,
        projection: P,
    ) -> Result<SqliteProjector<P>, PersistenceError> {
        SqliteTrackingRecorder(self.0.clone()).projector(projection).await
    }
}

impl<P: SqliteProjection> SqliteProjector<P> {
    /// Handles notifications and records the position as one; returns the number of notifications handled.
    async fn project(&self, batch: NotificationBatch<'_>, handler: Handler) -> Result<usize, ConsumerError> {
        let Store { datastore, table, lifecycle, .. } = &self.recorder.0;
        lifecycle.check_open()?;
        let NotificationBatch { application_name, notifications, position, expected_position } = batch;
        let events = notifications.iter().map(|notification| &notification.event);
        let permit = datastore.acquire_permit(queued_size(events)).await?;
        let (reply, outcome) = oneshot::channel();
        let job = ProjectionJob {
            application_name: application_name.to_owned(),
            notifications: notifications.to_vec(),
            position,
            expected_position,
            handler,
            table: Arc::clone(table),
            reply,
            permit,
            pending: lifecycle.accept()?,
        };
        datastore.submit(Command::Transact(Box::new(move |committer| job.run(committer))))?;
        outcome.await.unwrap_or_else(|_| Err(outcome_lost().into())).map_err(|error| match error {
            ConsumerError::Recording(error) => ConsumerError::Recording(datastore.with_name(error)),
            error => error,
        })
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
            projection.lock().project(transaction, notification).map_err(Into::into)
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
            // A batch to park has one notification.
            let Some(failure) = failure.take() else { return Ok(()) };
            projection.lock().park(transaction, notification, failure)
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
    let set_up = catch_panic(|| projection.set_up(&transaction).map_err(Into::into));
    set_up.map_err(HandlerError::from).flatten().map_err(|error| {
        PersistenceError::programming("the projection cannot be set up").with_source(error)
    })?;
    transaction.commit().map_err(from_sqlite)
}

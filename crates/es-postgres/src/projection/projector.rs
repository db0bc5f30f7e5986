//! Projections into tables of the program's own, which handle each notification exactly once.

use std::{error::Error, future::Future};

use es_core::{
    ConsumerError, ErrorKind, HandlerError, Notification, NotificationBatch, NotificationConsumer,
    PersistenceError, Tracking, TrackingRecorder,
};
use sqlx::{AssertSqlSafe, Connection, Postgres, SqlSafeStr, SqlStr, Transaction};

use crate::{
    connection::{
        Lease, LeaseKind,
        session::{self, Access, Backend},
    },
    error,
    fault_hooks::FaultPoint,
    recorder::{PostgresProcessRecorder, PostgresTrackingRecorder, Store},
    write::{not_recorded, record_position},
};

/// The key of the advisory lock under which projections are set up.
const SET_UP: i64 = 0x6573_7072_6f6a;

/// Handles notifications by writing tables of the program's own.
///
/// The statements of a handler are committed together with the position, or rolled back. The transaction is
/// `READ COMMITTED`, with the settings of the role, and with the [schema](crate::PostgresOptions::schema) of
/// the datastore, if it is another than `public`, first in its search path. Use `SET LOCAL` to change
/// settings: those of `SET` stay in the session after the commit, where statements of the library run.
///
/// If a handler leaves its transaction idle for the whole [response
/// timeout](crate::PostgresOptions::response_timeout), its connection is considered lost: nothing is
/// recorded, and the notification is handled again. A handler that reads or appends through recorders of the
/// same datastore needs a second connection: projections leave one of the pool to other callers, unless there
/// is only one.
///
/// ```
/// use es_core::Notification;
/// use es_postgres::PostgresProjection;
/// use sqlx::{Postgres, Transaction};
///
/// struct CountTopics;
///
/// impl PostgresProjection for CountTopics {
///     type Error = sqlx::Error;
///
///     async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), sqlx::Error> {
///         let sql = "CREATE TABLE IF NOT EXISTS topics (topic text PRIMARY KEY, count bigint NOT NULL)";
///         sqlx::query(sql).execute(&mut **transaction).await.map(drop)
///     }
///
///     async fn project(
///         &mut self,
///         transaction: &mut Transaction<'_, Postgres>,
///         notification: &Notification,
///     ) -> Result<(), sqlx::Error> {
///         let sql = "INSERT INTO topics AS t VALUES ($1, 1) \
///                    ON CONFLICT (topic) DO UPDATE SET count = t.count + 1";
///         sqlx::query(sql).bind(notification.event.topic.as_str()).execute(&mut **transaction).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait PostgresProjection: Send {
    /// The error of a notification that cannot be handled.
    type Error: Into<HandlerError> + Send;

    /// Creates the missing tables of the projection, by `CREATE TABLE IF NOT EXISTS`. Called when a projector
    /// is made, in a transaction of its own, by one process at a time. Does nothing by default.
    ///
    /// # Errors
    /// If it fails, no projector is made, and the transaction is rolled back.
    ///
    /// # Cancel safety
    /// Cancel safe: the transaction is rolled back.
    fn set_up(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = transaction;
        async { Ok(()) }
    }

    /// Handles a notification. Notifications arrive in order, several in one transaction when catching up.
    ///
    /// Return the error of a statement: after it, the server refuses every other statement of the
    /// transaction. To continue after an error, run the statement in a savepoint (`transaction.begin()`). Do
    /// not commit or roll back the transaction: that is detected, and is an error.
    ///
    /// # Errors
    /// Those of statements, or the projection's own. A transient error of the driver (a lost connection, a
    /// deadlock, a serialization failure), also as the source of another error, is reported as a transient
    /// failure of recording, and not as an error of the notification.
    ///
    /// # Cancel safety
    /// Cancel safe: the transaction is rolled back.
    fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Parks a notification that cannot be handled, for example in a table of failures, so that the next ones
    /// can be handled. Its statements are committed with the position. By default it returns the failure.
    ///
    /// # Errors
    /// The failure itself, to park nothing; otherwise as [`project`](Self::project).
    ///
    /// # Cancel safety
    /// As [`project`](Self::project).
    fn park(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
        failure: HandlerError,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send {
        let _ = (transaction, notification);
        async { Err(failure) }
    }
}

/// Runs a [projection](PostgresProjection) and records the position in the same commit.
///
/// It is made by [`PostgresTrackingRecorder::projector`] or [`PostgresProcessRecorder::projector`], and is a
/// [`NotificationConsumer`] for a processor of the crate `es-process`, which follows the upstream. The
/// position is recorded first: of two instances with the same notifications, one waits until the other has
/// committed, and then gets a conflict before its handlers run.
///
/// Besides the errors of handlers, it fails with a conflict if the position, or a later one, is recorded;
/// with a [transient](PersistenceError::is_transient) error if a retry may succeed; and with an [unknown
/// outcome](PersistenceError::is_outcome_unknown) if the connection is lost during the commit: then the
/// recorded position shows whether it was committed.
#[derive(Debug)]
pub struct PostgresProjector<P> {
    recorder: PostgresTrackingRecorder,
    projection: P,
}

impl PostgresTrackingRecorder {
    /// [Sets up](PostgresProjection::set_up) a projection into tables of this database, and returns a
    /// projector that records its positions here.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the projection cannot be set up, with its own
    /// error as the source; errors of the connection.
    ///
    /// # Cancel safety
    /// Cancel safe: either the projection is set up or it is not.
    pub async fn projector<P: PostgresProjection>(
        &self,
        mut projection: P,
    ) -> Result<PostgresProjector<P>, PersistenceError> {
        let store = &*self.0;
        let connections = &store.database.connections;
        let mut lease = lease(store).await?;
        let backend = lease.backend();
        let failed = |failed| error::from_statement("setting up a projection", failed);
        let beginning = async {
            let mut transaction = Connection::begin_with(&mut *lease, begin(store)).await?;
            // Two sessions that create the same table at the same time would conflict.
            let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({SET_UP})");
            session::run(&mut transaction, &lock).await?;
            Ok(transaction)
        };
        let begun = connections.with_liveness_check(backend, beginning).await.flatten();
        let mut transaction = begun.map_err(failed)?;
        let setting_up = projection.set_up(&mut transaction);
        let set_up = connections.with_handler_liveness_check(backend, setting_up).await;
        if let Err(error) = set_up.map_err(failed)? {
            let error: HandlerError = error.into();
            let is_transient = is_transient(&*error);
            let failed = PersistenceError::programming("a projection cannot be set up").with_source(error);
            return Err(if is_transient { failed.transient() } else { failed });
        }
        connections.with_liveness_check(backend, transaction.commit()).await.flatten().map_err(failed)?;
        lease.finish();
        Ok(PostgresProjector { recorder: self.clone(), projection })
    }
}

impl PostgresProcessRecorder {
    /// Returns a projector that records its positions here; see [`PostgresTrackingRecorder::projector`].
    ///
    /// # Errors
    /// As [`PostgresTrackingRecorder::projector`].
    ///
    /// # Cancel safety
    /// Cancel safe: either the projection is set up or it is not.
    pub async fn projector<P: PostgresProjection>(
        &self,
        projection: P,
    ) -> Result<PostgresProjector<P>, PersistenceError> {
        PostgresTrackingRecorder(self.0.clone()).projector(projection).await
    }
}

impl<P: PostgresProjection> NotificationConsumer for PostgresProjector<P> {
    type Recorder = PostgresTrackingRecorder;

    fn recorder(&self) -> &PostgresTrackingRecorder {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let handled = batch.notifications.len();
        if handled == 0 {
            self.recorder.insert_tracking(batch.tracking(0)?).await?;
            return Ok(0);
        }
        let store = &*self.recorder.0;
        let mut lease = lease(store).await?;
        let mut recording = Recording::begin(store, &mut lease, batch).await?;
        for (index, notification) in batch.notifications.iter().enumerate() {
            let projecting = self.projection.project(&mut recording.transaction, notification);
            match store.database.connections.with_handler_liveness_check(recording.backend, projecting).await
            {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(recording.roll_back(index, notification, error.into()).await),
                Err(no_answer) => return Err(interrupted(notification, no_answer.into())),
            }
        }
        recording.commit(handled).await?;
        lease.finish();
        Ok(handled)
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        let [notification] = batch.notifications else {
            return Err(PersistenceError::programming("a projector parks one notification at a time").into());
        };
        let store = &*self.recorder.0;
        let mut lease = lease(store).await?;
        let mut recording = Recording::begin(store, &mut lease, batch).await?;
        let parking = self.projection.park(&mut recording.transaction, notification, failure);
        match store.database.connections.with_handler_liveness_check(recording.backend, parking).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(recording.roll_back(0, notification, error).await),
            Err(no_answer) => return Err(interrupted(notification, no_answer.into())),
        }
        recording.commit(1).await?;
        lease.finish();
        Ok(())
    }
}

async fn lease(store: &Store) -> Result<Lease<'_>, PersistenceError> {
    store.check_open()?;
    Ok(store.database.connections.lease(LeaseKind::Projection).await?)
}

/// Returns the statements that begin a transaction for handlers.
fn begin(store: &Store) -> SqlStr {
    AssertSqlSafe(session::begin_for_user(&store.database.options, Access::ReadWrite)).into_sql_str()
}

/// A transaction in which the position is recorded. If it is dropped, the lease is not reused.
struct Recording<'a> {
    store: &'a Store,
    backend: Option<Backend>,
    transaction: Transaction<'a, Postgres>,
    /// The transaction's id, to detect that a handler has ended the transaction.
    id: i64,
    tracking: Tracking,
}

impl<'a> Recording<'a> {
    async fn begin(
        store: &'a Store,
        lease: &'a mut Lease<'_>,
        batch: NotificationBatch<'_>,
    ) -> Result<Self, PersistenceError> {
        let tracking = batch.tracking(batch.notifications.len())?;
        let mut ids: Vec<i64> = batch.notifications.iter().map(|notification| notification.id).collect();
        if ids.last() != Some(&tracking.notification_id()) {
            ids.push(tracking.notification_id());
        }
        let database = &store.database;
        let backend = lease.backend();
        let beginning = async {
            let mut transaction = Connection::begin_with(&mut **lease, begin(store)).await?;
            database.reached(FaultPoint::ProjectorBegun).await;
            let recorded = record_position(&store.appender, &mut transaction, &tracking, &ids).await?;
            database.reached(FaultPoint::ProjectorTracked).await;
            Ok::<_, sqlx::Error>((transaction, recorded))
        };
        match database.connections.with_liveness_check(backend, beginning).await.flatten() {
            Ok((transaction, recorded)) => Ok(Self { store, backend, transaction, id: recorded?, tracking }),
            Err(failed) => Err(not_recorded(&store.appender, &tracking, failed).await),
        }
    }

    /// Commits the results of so many notifications.
    async fn commit(mut self, handled: usize) -> Result<(), ConsumerError> {
        let database = &self.store.database;
        database.reached(FaultPoint::ProjectorHandled).await;
        self.check_transaction().await?;
        let committing = self.transaction.commit();
        let committed = database.connections.with_liveness_check(self.backend, committing).await.flatten();
        database.reached(FaultPoint::ProjectorCommitted).await;
        // Also if the outcome is unknown.
        self.store.signals.wake_position(&self.tracking);
        committed.map_err(|failed| commit_error(failed, handled))
    }

    /// Checks that the transaction is the one that was begun, and has not failed. Committing a failed
    /// transaction rolls it back, which the driver does not report; and statements after the end of the
    /// transaction would be committed by themselves.
    async fn check_transaction(&mut self) -> Result<(), PersistenceError> {
        let database = &self.store.database;
        let query = sqlx::query_scalar("SELECT pg_catalog.txid_current_if_assigned()");
        let query = query.persistent(!database.options.transaction_pooler).fetch_one(&mut *self.transaction);
        let invalid = |reason| Err(PersistenceError::programming(format!("nothing was recorded: {reason}")));
        match database.connections.with_liveness_check(self.backend, query).await.flatten() {
            Ok(id) if id == Some(self.id) => Ok(()),
            Ok::<Option<i64>, _>(_) => invalid("the projection has ended the transaction"),
            Err(failed) if error::has_sqlstate(&failed, &["25P02"]) => {
                invalid("a statement of the projection failed, and the projection returned no error")
            }
            Err(failed) => Err(not_recorded(&self.store.appender, &self.tracking, failed).await),
        }
    }

    /// Rolls back after a handler's error. Returns the error of the batch.
    async fn roll_back(
        self,
        index: usize,
        notification: &Notification,
        error: HandlerError,
    ) -> ConsumerError {
        let connections = &self.store.database.connections;
        let rolling_back = self.transaction.rollback();
        let rolled_back = connections.with_liveness_check(self.backend, rolling_back).await.flatten();
        let is_lost = rolled_back.is_err_and(|failed| error::is_lost(&failed));
        if !is_lost && !is_transient(&*error) {
            return ConsumerError::Handler { index, error };
        }
        interrupted(notification, error)
    }
}

/// Returns the error for a handler that was interrupted by a transient failure.
fn interrupted(notification: &Notification, error: HandlerError) -> ConsumerError {
    let message = format!("handling notification {} was interrupted", notification.id);
    ConsumerError::Recording(PersistenceError::operational(message).with_source(error).transient())
}

/// Returns the error for a commit that failed. The server checks deferred constraints in the commit, and does
/// not report which notification violates them; a processor determines it by smaller batches.
fn commit_error(failed: sqlx::Error, handled: usize) -> ConsumerError {
    if error::is_lost(&failed) {
        let message = "the connection was lost while a projection was committed";
        let unknown = PersistenceError::new(ErrorKind::OutcomeUnknown, message);
        return ConsumerError::Recording(unknown.with_source(failed));
    }
    let failed = error::from_statement("committing a projection", failed);
    match handled.checked_sub(1) {
        Some(index) if failed.kind() == ErrorKind::Integrity => {
            ConsumerError::Handler { index, error: failed.into() }
        }
        _ => ConsumerError::Recording(failed),
    }
}

/// Returns whether a handler's error, or one of its sources, is transient.
fn is_transient(error: &(dyn Error + 'static)) -> bool {
    PersistenceError::is_transient_in(error)
        || std::iter::successors(Some(error), |error| (*error).source())
            .any(|cause| cause.downcast_ref::<sqlx::Error>().is_some_and(error::is_transient))
}

//! Projecting notifications into tables of the user's own, each exactly once.

use std::{error::Error, future::Future};

use es_core::{
    ConsumerError, ErrorKind, HandlerError, Notification, NotificationBatch, NotificationConsumer,
    PersistenceError, Tracking, TrackingRecorder,
};
use sqlx::{AssertSqlSafe, Connection, Postgres, SqlSafeStr, Transaction};

use crate::{
    PostgresProcessRecorder, PostgresTrackingRecorder,
    connection::{
        pool::{Caller, Lease},
        session::{self, Backend},
    },
    error,
    fault_hooks::FaultPoint,
    store::Store,
    write::position::not_recorded,
};

/// The advisory lock under which projections are set up.
const SET_UP: i64 = 0x6573_7072_6f6a;

/// Makes something of notifications, in tables of the user's own.
///
/// Whatever it does in the transaction is committed together with the position, or not at all. The
/// transaction is `READ COMMITTED`, with the settings of the role. Use `SET LOCAL` to change settings: those of `SET`
/// stay in the session after the commit, where statements of the library run.
///
/// A handler that leaves its transaction idle for the whole
/// [response timeout](crate::PostgresOptions::response_timeout) is given up, since its connection cannot be told
/// from a silent one: nothing is recorded, and the notification is handled again. One that reads or appends
/// through recorders of the same datastore needs a second connection: projections leave one of the pool's to
/// others, unless there is only one.
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
///         let sql = "INSERT INTO topics AS t VALUES ($1, 1) ON CONFLICT (topic) DO UPDATE SET count = t.count + 1";
///         sqlx::query(sql).bind(notification.event.topic.as_str()).execute(&mut **transaction).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait PostgresProjection: Send {
    /// Why a notification cannot be handled.
    type Error: Into<HandlerError> + Send;

    /// Creates what is missing of the projection's tables. Called when a projector is made, in a
    /// transaction of its own, by one process at a time: `CREATE TABLE IF NOT EXISTS`. By default it does
    /// nothing.
    ///
    /// # Errors
    /// Then there is no projector, and nothing of it is kept.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction is rolled back.
    fn set_up(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = transaction;
        async { Ok(()) }
    }

    /// Handles a notification. Notifications come in their order, several in one transaction when
    /// catching up.
    ///
    /// Return the error of a statement: after it, the server refuses everything else in the
    /// transaction. To go on after one, run it in a savepoint (`transaction.begin()`). Do not commit or roll back
    /// the transaction: that is found out, and nothing counts as recorded then.
    ///
    /// # Errors
    /// Those of statements, or the projection's own. A driver's error that may pass (a lost connection, a
    /// deadlock, a failed serialization), also as the source of another one, is told as a transient failure of
    /// recording, and not as the notification's fault.
    ///
    /// # Cancel safety
    /// When the future is dropped, the transaction is rolled back.
    fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Keeps what is wanted of a notification that cannot be handled, so that those after it can be:
    /// what it does is committed with the position. By default giving up is not wanted.
    ///
    /// # Errors
    /// The failure itself when giving up is not wanted; otherwise as [`project`](Self::project).
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
/// Made by [`PostgresTrackingRecorder::projector`] and [`PostgresProcessRecorder::projector`]: a
/// [`NotificationConsumer`] for a processor of the crate `es-process`, which follows the upstream. The
/// position is recorded first: of two instances that are handed the same notifications, one waits until the
/// other has committed, and then loses with a conflict, before its handlers run.
///
/// What it fails with, beyond what handlers fail with: a conflict when the position, or a later one, is
/// recorded; a [transient](PersistenceError::is_transient) error when trying again may help;
/// an [unknown outcome](PersistenceError::is_outcome_unknown) when the connection is lost during the
/// commit, where the recorded position tells what became of it.
#[derive(Debug)]
pub struct PostgresProjector<P> {
    /// Of a process recorder, what tracks.
    recorder: PostgresTrackingRecorder,
    projection: P,
}

impl PostgresTrackingRecorder {
    /// A projector into tables of this database that records its positions here, having
    /// [set up](PostgresProjection::set_up) the projection.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the projection cannot be set up, with its
    /// own error as the source; when the server cannot be reached.
    ///
    /// # Cancel safety
    /// When the future is dropped, the projection is set up, or it is not.
    pub async fn projector<P: PostgresProjection>(
        &self,
        mut projection: P,
    ) -> Result<PostgresProjector<P>, PersistenceError> {
        let store = &*self.0;
        let connections = &store.datastore.0.connections;
        let mut lease = lease(store).await?;
        let backend = lease.backend();
        let begin = AssertSqlSafe(store.begin()).into_sql_str();
        let failed = |failed| error::from_statement("setting up a projection", failed);
        let beginning = async {
            let mut transaction = Connection::begin_with(&mut *lease, begin).await?;
            // Two sessions that create the same table at the same time get in each other's way.
            let lock = format!("SELECT pg_catalog.pg_advisory_xact_lock({SET_UP})");
            session::run(&mut transaction, &lock).await?;
            Ok(transaction)
        };
        let began = connections.answered(backend, beginning).await.and_then(|began| began);
        let mut transaction = began.map_err(failed)?;
        let set_up = connections.handled(backend, projection.set_up(&mut transaction)).await;
        if let Err(error) = set_up.map_err(failed)? {
            let error: HandlerError = error.into();
            let may_pass = may_pass(&*error);
            let failed = PersistenceError::programming("a projection cannot be set up").with_source(error);
            return Err(if may_pass { failed.transient() } else { failed });
        }
        let committed = connections.answered(backend, transaction.commit()).await;
        committed.and_then(|committed| committed).map_err(failed)?;
        lease.finish();
        Ok(PostgresProjector { recorder: self.clone(), projection })
    }
}

impl PostgresProcessRecorder {
    /// A projector that records its positions here; see [`PostgresTrackingRecorder::projector`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
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
            match store.datastore.0.connections.handled(recording.backend, projecting).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(recording.give_up(index, notification, error.into()).await),
                Err(silent) => return Err(interrupted(notification, silent.into())),
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
            return Err(PersistenceError::programming("one notification at a time is given up on").into());
        };
        let store = &*self.recorder.0;
        let mut lease = lease(store).await?;
        let mut recording = Recording::begin(store, &mut lease, batch).await?;
        let parking = self.projection.park(&mut recording.transaction, notification, failure);
        match store.datastore.0.connections.handled(recording.backend, parking).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(recording.give_up(0, notification, error).await),
            Err(silent) => return Err(interrupted(notification, silent.into())),
        }
        recording.commit(1).await?;
        lease.finish();
        Ok(())
    }
}

async fn lease(store: &Store) -> Result<Lease<'_>, PersistenceError> {
    store.check_open()?;
    Ok(store.datastore.0.connections.lease(Caller::Projection).await?)
}

/// A transaction in which the position is recorded. Dropping it leaves the lease as it is: not to be
/// used again.
struct Recording<'a> {
    store: &'a Store,
    backend: Option<Backend>,
    transaction: Transaction<'a, Postgres>,
    /// The transaction's id, by which to tell that it is still the same.
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
        let datastore = &store.datastore.0;
        let backend = lease.backend();
        let begin = AssertSqlSafe(store.begin()).into_sql_str();
        let beginning = async {
            let mut transaction = Connection::begin_with(&mut **lease, begin).await?;
            datastore.options.hooks.reached(FaultPoint::ProjectorBegun).await;
            let recorded = store.track_in(&mut transaction, &tracking, &ids).await?;
            datastore.options.hooks.reached(FaultPoint::ProjectorTracked).await;
            Ok::<_, sqlx::Error>((transaction, recorded))
        };
        match datastore.connections.answered(backend, beginning).await.and_then(|began| began) {
            Ok((transaction, recorded)) => Ok(Self { store, backend, transaction, id: recorded?, tracking }),
            Err(failed) => {
                store.look_again(&failed).await;
                Err(not_recorded(&tracking, failed))
            }
        }
    }

    /// Commits what became of so many notifications.
    async fn commit(mut self, handled: usize) -> Result<(), ConsumerError> {
        let datastore = &self.store.datastore.0;
        let hooks = &datastore.options.hooks;
        hooks.reached(FaultPoint::ProjectorHandled).await;
        self.check_going_on().await?;
        let committed = datastore.connections.answered(self.backend, self.transaction.commit()).await;
        let committed = committed.and_then(|committed| committed);
        hooks.reached(FaultPoint::ProjectorCommitted).await;
        // Perhaps also when its outcome is not known.
        self.store.signals.tracked(&self.tracking);
        committed.map_err(|failed| after_commit(failed, handled))
    }

    /// Committing a transaction that has failed rolls it back, and the driver does not say so; and what
    /// is done after somebody has ended it is committed by itself.
    async fn check_going_on(&mut self) -> Result<(), PersistenceError> {
        let asking = sqlx::query_scalar("SELECT pg_catalog.txid_current_if_assigned()")
            .persistent(!self.store.datastore.0.options.transaction_pooler);
        let wrong = |what| Err(PersistenceError::programming(format!("nothing was recorded: {what}")));
        let asking = asking.fetch_one(&mut *self.transaction);
        let connections = &self.store.datastore.0.connections;
        match connections.answered(self.backend, asking).await.and_then(|answer| answer) {
            Ok(id) if id == Some(self.id) => Ok(()),
            Ok::<Option<i64>, _>(_) => wrong("the projection has ended the transaction"),
            Err(failed) if error::has_sqlstate(&failed, &["25P02"]) => {
                wrong("a statement of the projection failed, and it went on")
            }
            Err(failed) => Err(not_recorded(&self.tracking, failed)),
        }
    }

    /// Rolls back because of a handler's error; the failure that it makes.
    async fn give_up(self, index: usize, notification: &Notification, error: HandlerError) -> ConsumerError {
        let connections = &self.store.datastore.0.connections;
        let rolled_back = connections.answered(self.backend, self.transaction.rollback()).await;
        let rolled_back = rolled_back.and_then(|rolled_back| rolled_back);
        let is_lost = rolled_back.is_err_and(|failed| error::is_lost(&failed));
        if !is_lost && !may_pass(&*error) {
            return ConsumerError::Handler { index, error };
        }
        interrupted(notification, error)
    }
}

/// The failure of a handler that is not the handler's fault.
fn interrupted(notification: &Notification, error: HandlerError) -> ConsumerError {
    let message = format!("handling notification {} was interrupted", notification.id);
    ConsumerError::Recording(PersistenceError::operational(message).with_source(error).transient())
}

/// What a commit that failed means. The server checks deferred constraints no sooner: it does not say
/// which notification violates them, and a processor that then hands over fewer finds out.
fn after_commit(failed: sqlx::Error, handled: usize) -> ConsumerError {
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

/// Whether a handler's error, or one of its sources, is a failure that may pass by itself.
fn may_pass(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|cause| {
        cause.downcast_ref::<sqlx::Error>().is_some_and(error::is_transient)
            || cause.downcast_ref::<PersistenceError>().is_some_and(PersistenceError::is_transient)
    })
}

//! The interface between the factory and a datastore.

use std::{fmt::Debug, sync::Arc};

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynStateMaintenance, DynTrackingRecorder, PersistenceError, RecorderTables,
};

use crate::{BoxConsumer, DynSqlProjection, Sql, SqlRow, sql::Statements};

/// A source of recorders on one datastore, as an environment describes it.
///
/// Implement it, and [register](crate::Registry::register_backend) a function that constructs it, to
/// make a datastore of your own available by name. Constructing does not connect: the methods do.
/// Recorders of one backend share its datastore.
///
/// # Errors
/// The methods fail if the datastore cannot be opened or does not have what they need, such as a table that
/// must exist; [`execute`](Self::execute) and [`query`](Self::query) with the errors of their statements.
///
/// # Cancel safety
/// All methods are cancel safe: a table is created or not, and [`execute`](Self::execute) runs all statements
/// or none.
pub trait Backend: Debug + Send + Sync + 'static {
    /// A recorder of the events of aggregates for a purpose, such as `snapshots`, in a table of
    /// their own.
    fn aggregate_recorder<'a>(
        &'a self,
        purpose: &'a str,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>>;

    /// A recorder of the application's events.
    fn application_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynApplicationRecorder>>;

    /// A recorder of tracking positions.
    fn tracking_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynTrackingRecorder>>;

    /// A recorder of the application's events and its tracking positions.
    fn process_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynProcessRecorder>>;

    /// A recorder of the segments of partitioned consumers. By default it is not supported.
    fn segment_recorder(&self) -> BoxFuture<'_, Arc<dyn DynSegmentRecorder>> {
        Box::pin(async {
            Err(PersistenceError::not_supported("the datastore cannot record segments of consumers"))
        })
    }

    /// A consumer that runs the statements of a projection in the commit that records the position. By
    /// default it is not supported.
    fn projector(&self, projection: Box<dyn DynSqlProjection>) -> BoxFuture<'_, BoxConsumer> {
        let _ = projection;
        Box::pin(async { Err(no_sql()) })
    }

    /// Runs statements in one transaction, one such transaction at a time. By default it uses that in which
    /// [`projector`](Self::projector) sets up a projection.
    fn execute(&self, statements: Vec<Sql>) -> BoxFuture<'_, ()> {
        let projector = self.projector(Box::new(Statements(statements)));
        Box::pin(async { projector.await.map(drop) })
    }

    /// Returns the table of tracking records, as statements name it: with the columns `application_name` and
    /// `notification_id`. By default it is not supported.
    ///
    /// # Errors
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) if the datastore has no SQL.
    fn tracking_table(&self) -> Result<String, PersistenceError> {
        Err(no_sql())
    }

    /// Runs a query that only reads. By default it is not supported.
    fn query(&self, query: Sql) -> BoxFuture<'_, Vec<SqlRow>> {
        let _ = query;
        Box::pin(async { Err(no_sql()) })
    }

    /// A recorder that reads and replaces the states of the application's events, or of a purpose. By default
    /// it is not supported.
    fn state_maintenance<'a>(
        &'a self,
        purpose: Option<&'a str>,
    ) -> BoxFuture<'a, Arc<dyn DynStateMaintenance>> {
        let _ = purpose;
        Box::pin(async {
            Err(PersistenceError::not_supported("the datastore cannot replace the states of recorded events"))
        })
    }

    /// Closes the datastore, and with it every recorder of this backend.
    fn close(&self) -> BoxFuture<'_, ()>;
}

fn no_sql() -> PersistenceError {
    PersistenceError::not_supported(
        "the datastore has no SQL: set PERSISTENCE_MODULE to sqlite (with SQLITE_DBNAME=:memory: if the data need \
         not last) or to postgres",
    )
}

//! One database, shared by several recorders.

use std::sync::Arc;

use es_core::{PersistenceError, RecorderTables};
use sqlx::{
    SqlSafeStr,
    postgres::{PgArguments, PgRow},
};

use crate::{
    connection::{Database, Query},
    options::PostgresOptions,
    recorder::{
        PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder,
        PostgresTrackingRecorder, Store,
    },
    resources::Resources,
    runtime,
    schema::{self, TableName, TableSpec},
};

/// An open PostgreSQL database: a pool of connections that its recorders share.
///
/// Cloning returns another handle of the same datastore. The connections are closed by
/// [`close`](Self::close), or when the last handle and the last recorder are dropped.
///
/// An application name is the prefix of table names, in lower case; it may be empty.
#[derive(Clone, Debug)]
pub struct PostgresDatastore {
    resources: Arc<Resources>,
    /// The connections of the resources, with the schema of this handle.
    database: Arc<Database>,
}

impl PostgresOptions {
    /// Connects to the server.
    ///
    /// The environment variables of libpq (`PGHOST`, `PGPASSWORD`, `PGSSLMODE` and others) and the password
    /// file have no effect. `PGOPTIONS`, `PGSSLCERT` and `PGSSLKEY`, which the driver reads and which cannot
    /// be overridden, must not be set: opening fails, except that those of a client certificate are ignored
    /// if [`ssl_client_certificate`](Self::ssl_client_certificate) is given.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) if no host can be reached, or none of several accepts
    /// writes; [`Programming`](es_core::ErrorKind::Programming) for invalid options;
    /// [`Interface`](es_core::ErrorKind::Interface) outside of a tokio runtime, or in one without timers or
    /// input/output.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection is closed.
    pub async fn open(self) -> Result<PostgresDatastore, PersistenceError> {
        runtime::verify_drivers()?;
        self.check()?;
        let database = Arc::new(Database::open(self).await?);
        let resources = Arc::new(Resources::new(Arc::clone(&database)));
        Ok(PostgresDatastore { resources, database })
    }
}

impl PostgresDatastore {
    /// Returns a handle whose recorders, projections and queries use another schema, on the same connections:
    /// for many tenants with a schema each. The schema is not created. Closing any handle closes all.
    ///
    /// ```no_run
    /// # async fn example(shared: es_postgres::PostgresDatastore) -> Result<(), es_core::PersistenceError> {
    /// let recorder = shared.in_schema("tenant_7").process_recorder("bank").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn in_schema(&self, schema: impl Into<String>) -> Self {
        let database = Arc::new(self.database.in_schema(schema.into()));
        Self { resources: Arc::clone(&self.resources), database }
    }

    /// Returns a recorder of events of aggregates for a purpose, such as `snapshots`: table
    /// `stored_snapshots`, or `bank_snapshots` with the application name `bank`.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the table's name would be too long, or the table
    /// is missing and not to be created; errors of the server.
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn aggregate_recorder(
        &self,
        application_name: &str,
        purpose: &str,
    ) -> Result<PostgresAggregateRecorder, PersistenceError> {
        self.aggregate_recorder_with(application_name, purpose, &RecorderTables::new()).await
    }

    /// Returns a recorder as [`aggregate_recorder`](Self::aggregate_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn aggregate_recorder_with(
        &self,
        application_name: &str,
        purpose: &str,
        tables: &RecorderTables,
    ) -> Result<PostgresAggregateRecorder, PersistenceError> {
        let events = match tables.events_name() {
            Some(name) => TableName::new(self.schema(), name)?,
            None => self.table(application_name, purpose, &format!("stored_{purpose}"))?,
        };
        let spec = TableSpec { events: Some(events), ..TableSpec::default() };
        Ok(PostgresAggregateRecorder(self.store(spec, tables).await?))
    }

    /// Returns a recorder of events in one total order: table `stored_events`, or `bank_events`.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) if the table does not allocate ids as the parallel
    /// ordering needs them.
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn application_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresApplicationRecorder, PersistenceError> {
        self.application_recorder_with(application_name, &RecorderTables::new()).await
    }

    /// Returns a recorder as [`application_recorder`](Self::application_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`application_recorder`](Self::application_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn application_recorder_with(
        &self,
        application_name: &str,
        tables: &RecorderTables,
    ) -> Result<PostgresApplicationRecorder, PersistenceError> {
        let events = self.events_table(application_name, tables)?;
        let spec = TableSpec { events: Some(events), notifications: true, tracking: None };
        Ok(PostgresApplicationRecorder(self.store(spec, tables).await?))
    }

    /// Returns a recorder of events in one total order, and of tracking records: tables `stored_events` and
    /// `notification_tracking`, or `bank_events` and `bank_tracking`.
    ///
    /// # Errors
    /// As [`application_recorder`](Self::application_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn process_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresProcessRecorder, PersistenceError> {
        self.process_recorder_with(application_name, &RecorderTables::new()).await
    }

    /// Returns a recorder as [`process_recorder`](Self::process_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`process_recorder`](Self::process_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn process_recorder_with(
        &self,
        application_name: &str,
        tables: &RecorderTables,
    ) -> Result<PostgresProcessRecorder, PersistenceError> {
        let events = self.events_table(application_name, tables)?;
        let tracking = self.tracking_table(application_name, tables)?;
        let spec = TableSpec { events: Some(events), notifications: true, tracking: Some(tracking) };
        Ok(PostgresProcessRecorder(self.store(spec, tables).await?))
    }

    /// Returns a recorder of tracking records alone: table `notification_tracking`, or `bank_tracking`.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn tracking_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresTrackingRecorder, PersistenceError> {
        self.tracking_recorder_with(application_name, &RecorderTables::new()).await
    }

    /// Returns a recorder as [`tracking_recorder`](Self::tracking_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`tracking_recorder`](Self::tracking_recorder).
    ///
    /// # Cancel safety
    /// Cancel safe, but tables may have been created.
    pub async fn tracking_recorder_with(
        &self,
        application_name: &str,
        tables: &RecorderTables,
    ) -> Result<PostgresTrackingRecorder, PersistenceError> {
        let tracking = self.tracking_table(application_name, tables)?;
        let spec = TableSpec { tracking: Some(tracking), ..TableSpec::default() };
        Ok(PostgresTrackingRecorder(self.store(spec, tables).await?))
    }

    /// Runs a query of the program's own, for example on the tables of a
    /// [projection](crate::PostgresProjection), in a read-only transaction: with the settings of the role,
    /// and the search path of projections. If the connection is lost, it is repeated on a new one.
    ///
    /// # Errors
    /// Errors of the server, among them that the query writes; those of `decode`.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn fetch<T: Send>(
        &self,
        query: impl SqlSafeStr,
        arguments: PgArguments,
        decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, PersistenceError> {
        self.resources.check_open()?;
        self.database.fetch(&Query::of_user(query.into_sql_str(), arguments), decode).await
    }

    /// Closes all recorders, after their accepted writes, and then the connections.
    ///
    /// Later calls of other methods, and of the recorders', fail with an
    /// [`Interface`](es_core::ErrorKind::Interface) error. Closing again succeeds.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the recorders are closed and accepted writes finish; the connections are
    /// closed when the last handle is dropped, or by closing again.
    pub async fn close(&self) -> Result<(), PersistenceError> {
        self.resources.close().await
    }

    fn events_table(
        &self,
        application_name: &str,
        tables: &RecorderTables,
    ) -> Result<TableName, PersistenceError> {
        match tables.events_name() {
            Some(name) => TableName::new(self.schema(), name),
            None => self.table(application_name, "events", "stored_events"),
        }
    }

    fn tracking_table(
        &self,
        application_name: &str,
        tables: &RecorderTables,
    ) -> Result<TableName, PersistenceError> {
        match tables.tracking_name() {
            Some(name) => TableName::new(self.schema(), name),
            None => self.table(application_name, "tracking", "notification_tracking"),
        }
    }

    fn schema(&self) -> &str {
        &self.database.options.schema
    }

    fn table(
        &self,
        application_name: &str,
        suffix: &str,
        unnamed: &str,
    ) -> Result<TableName, PersistenceError> {
        TableName::of_application(self.schema(), application_name, suffix, unnamed)
    }

    async fn store(&self, spec: TableSpec, tables: &RecorderTables) -> Result<Arc<Store>, PersistenceError> {
        let create = tables.is_created().unwrap_or(self.database.options.create_table);
        let state = schema::prepare(&self.database, &spec, create).await?;
        let (resources, database) = (Arc::clone(&self.resources), Arc::clone(&self.database));
        Ok(Arc::new(Store::new(resources, database, spec, state)?))
    }
}

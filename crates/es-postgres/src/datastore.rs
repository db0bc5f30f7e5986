//! One database, as several recorders share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use es_core::PersistenceError;
use futures_util::future::join_all;
use sqlx::{
    SqlStr,
    postgres::{PgArguments, PgConnection, PgRow},
};

use crate::{
    PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder,
    PostgresTrackingRecorder,
    connection::{
        backoff::Retries,
        pool::{Caller, Connections, Lease, LeaseError},
        session::{self, Access},
    },
    error,
    follow::{listener::Listening, signals::SharedTables},
    options::PostgresOptions,
    read::select::{self, Fetched, ReadError},
    schema::{self, CatalogState, TableName, TableSpec},
    store::Store,
    write::Queue,
};

/// One PostgreSQL database, open: a pool of connections that its recorders share.
///
/// Cloning gives another handle of the same. The connections are closed by [`close`](Self::close),
/// or when the last handle and the last recorder are dropped.
///
/// An application name is the prefix of table names, in lower case; it may be empty.
#[derive(Clone, Debug)]
pub struct PostgresDatastore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: PostgresOptions,
    pub(crate) connections: Connections,
    queues: Mutex<Queues>,
    pub(crate) shared_tables: SharedTables,
    pub(crate) listening: Listening,
}

/// The queues of the datastore's recorders, which closing empties before connections go.
#[derive(Debug, Default)]
struct Queues {
    is_closed: bool,
    open: Vec<Weak<Queue>>,
}

impl PostgresDatastore {
    pub(crate) async fn open(options: PostgresOptions) -> Result<Self, PersistenceError> {
        let connections = Connections::new(&options)?;
        connections.lease(Caller::Reader).await?.finish();
        Ok(Self(Arc::new(Inner {
            options,
            connections,
            queues: Mutex::default(),
            shared_tables: SharedTables::default(),
            listening: Listening::default(),
        })))
    }

    /// A recorder of events of aggregates for a purpose, such as `snapshots`: table `stored_snapshots`,
    /// or `bank_snapshots` with the application name `bank`.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the table's name would be too long, or
    /// the table is missing and not to be created; what the server refuses.
    ///
    /// # Cancel safety
    /// When the future is dropped, tables may have been created.
    pub async fn aggregate_recorder(
        &self,
        application_name: &str,
        purpose: &str,
    ) -> Result<PostgresAggregateRecorder, PersistenceError> {
        let events = TableName::of_application(
            &self.0.options.schema,
            application_name,
            purpose,
            &format!("stored_{purpose}"),
        )?;
        let spec = TableSpec { events: Some(events), ..TableSpec::default() };
        Ok(PostgresAggregateRecorder(self.store(spec).await?))
    }

    /// A recorder of events and their total order: table `stored_events`, or `bank_events`.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) when ids in the table do not come as the
    /// parallel ordering needs them.
    ///
    /// # Cancel safety
    /// When the future is dropped, tables may have been created.
    pub async fn application_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresApplicationRecorder, PersistenceError> {
        let events = self.events_table(application_name)?;
        let spec = TableSpec { events: Some(events), notifications: true, tracking: None };
        Ok(PostgresApplicationRecorder(self.store(spec).await?))
    }

    /// A recorder of events, their total order, and tracking: tables `stored_events` and
    /// `notification_tracking`, or `bank_events` and `bank_tracking`.
    ///
    /// # Errors
    /// As [`application_recorder`](Self::application_recorder).
    ///
    /// # Cancel safety
    /// When the future is dropped, tables may have been created.
    pub async fn process_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresProcessRecorder, PersistenceError> {
        let events = self.events_table(application_name)?;
        let tracking = self.tracking_table(application_name)?;
        let spec = TableSpec { events: Some(events), notifications: true, tracking: Some(tracking) };
        Ok(PostgresProcessRecorder(self.store(spec).await?))
    }

    /// A recorder of tracking alone: table `notification_tracking`, or `bank_tracking`.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder).
    ///
    /// # Cancel safety
    /// When the future is dropped, tables may have been created.
    pub async fn tracking_recorder(
        &self,
        application_name: &str,
    ) -> Result<PostgresTrackingRecorder, PersistenceError> {
        let tracking = self.tracking_table(application_name)?;
        let spec = TableSpec { tracking: Some(tracking), ..TableSpec::default() };
        Ok(PostgresTrackingRecorder(self.store(spec).await?))
    }

    /// Waits for accepted writes, then closes the connections, for all recorders that share them.
    ///
    /// Later calls of other methods, and of the recorders', fail with an
    /// [`Interface`](es_core::ErrorKind::Interface) error. Closing again succeeds.
    ///
    /// # Errors
    /// None at present.
    ///
    /// # Cancel safety
    /// If the future is dropped, the recorders are closed and accepted writes finish; the connections are
    /// closed when the last handle is dropped, or by closing again.
    pub async fn close(&self) -> Result<(), PersistenceError> {
        self.0.shared_tables.close();
        let queues: Vec<Arc<Queue>> = {
            let mut queues = self.lock_queues();
            queues.is_closed = true;
            queues.open.iter().filter_map(Weak::upgrade).collect()
        };
        join_all(queues.iter().map(|queue| queue.close())).await;
        self.0.shared_tables.told().await;
        self.0.connections.close().await;
        Ok(())
    }

    fn events_table(&self, application_name: &str) -> Result<TableName, PersistenceError> {
        TableName::of_application(&self.0.options.schema, application_name, "events", "stored_events")
    }

    fn tracking_table(&self, application_name: &str) -> Result<TableName, PersistenceError> {
        TableName::of_application(
            &self.0.options.schema,
            application_name,
            "tracking",
            "notification_tracking",
        )
    }

    async fn store(&self, spec: TableSpec) -> Result<Arc<Store>, PersistenceError> {
        let state = self.prepare(&spec, self.0.options.create_table).await?;
        let mut queues = self.lock_queues();
        if queues.is_closed {
            return Err(error::datastore_closed());
        }
        let signals = Arc::new(self.0.shared_tables.signals(self, &spec));
        let store = Store::new(self.clone(), spec, state, signals);
        queues.open.retain(|queue| queue.strong_count() > 0);
        queues.open.push(Arc::downgrade(&store.queue));
        Ok(Arc::new(store))
    }

    pub(crate) async fn prepare(
        &self,
        spec: &TableSpec,
        create: bool,
    ) -> Result<CatalogState, PersistenceError> {
        let connections = &self.0.connections;
        let mut lease = connections.lease(Caller::Reader).await?;
        let backend = lease.backend();
        let preparing = schema::prepare(&mut lease, spec, create, self.0.options.ordering);
        let prepared = connections.answered(backend, preparing).await;
        let state = prepared.map_err(|failed| error::from_statement("inspecting the tables", failed))??;
        lease.finish();
        Ok(state)
    }

    fn lock_queues(&self) -> MutexGuard<'_, Queues> {
        // Nothing panics while it is held.
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches rows, again on a new connection when one is lost, because reading twice does no harm;
    /// for as long as one may wait for a connection.
    pub(crate) async fn fetch<T: Send>(
        &self,
        query: &Query,
        decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, PersistenceError> {
        self.fetch_for(Caller::Reader, query, decode).await
    }

    pub(crate) async fn fetch_for<T: Send>(
        &self,
        caller: Caller,
        query: &Query,
        mut decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, PersistenceError> {
        // From the first failure on: that may have taken long.
        let mut retries = None;
        loop {
            let failed = match self.0.connections.lease(caller).await {
                Ok(mut lease) => match self.fetch_with(&mut lease, query, &mut decode).await {
                    // Closing the connection is cheaper than receiving the rest.
                    Ok(Fetched { decoded, has_rest: true }) => return Ok(decoded),
                    Ok(Fetched { decoded, has_rest: false }) => {
                        lease.finish();
                        return Ok(decoded);
                    }
                    Err(ReadError::Statement(failed)) if error::is_lost(&failed) => {
                        self.0.connections.purge();
                        error::from_statement(query.doing, failed)
                    }
                    Err(ReadError::Statement(failed)) => {
                        return Err(error::from_statement(query.doing, failed));
                    }
                    Err(ReadError::Row(failed)) => return Err(failed),
                },
                Err(LeaseError::NotConnected(failed)) if failed.is_transient() => failed,
                Err(failed) => return Err(failed.into()),
            };
            let retries = retries.get_or_insert_with(|| Retries::within(self.0.options.connect_timeout));
            if !retries.again().await {
                return Err(failed);
            }
        }
    }

    async fn fetch_with<T: Send>(
        &self,
        lease: &mut Lease<'_>,
        query: &Query,
        decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
    ) -> Result<Fetched<T>, ReadError> {
        let backend = lease.backend();
        self.0.connections.answered(backend, self.fetch_on(lease, query, decode)).await?
    }

    async fn fetch_on<T: Send>(
        &self,
        connection: &mut PgConnection,
        query: &Query,
        decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
    ) -> Result<Fetched<T>, ReadError> {
        if !self.0.options.transaction_pooler {
            return select::fetch(connection, query, true, decode).await;
        }
        session::run(connection, &session::begin(&self.0.options, Access::ReadOnly)).await?;
        let rows = select::fetch(connection, query, false, decode).await?;
        if !rows.has_rest {
            session::run(connection, "COMMIT").await?;
        }
        Ok(rows)
    }
}

/// A statement that reads, with its arguments.
#[derive(Debug)]
pub(crate) struct Query {
    /// What it is for, in an error's words.
    pub(crate) doing: &'static str,
    pub(crate) sql: SqlStr,
    pub(crate) arguments: PgArguments,
    /// The states of so many bytes are enough, where the rows are events.
    pub(crate) max_bytes: Option<usize>,
}

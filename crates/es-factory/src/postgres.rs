//! The backend on PostgreSQL.

use std::{sync::Arc, time::Duration};

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynStateMaintenance, DynTrackingRecorder, PersistenceError, RecorderTables,
};
use es_postgres::{PostgresDatastore, PostgresOptions};
use tokio::sync::OnceCell;

use crate::{
    Backend, BoxConsumer, DynSqlProjection, Environment, Sql, SqlRow,
    sql::{PostgresStatements, fetch},
};

/// The default port of the hosts.
const DEFAULT_PORT: &str = "5432";

#[derive(Debug)]
pub(crate) struct Postgres {
    application_name: String,
    options: PostgresOptions,
    is_pooled: bool,
    datastore: OnceCell<PostgresDatastore>,
}

impl Postgres {
    pub(crate) fn new(environment: &Environment) -> Result<Self, PersistenceError> {
        Ok(Self {
            application_name: environment.application_name().to_owned(),
            options: options(environment)?,
            is_pooled: is_pooled(environment)?,
            datastore: OnceCell::new(),
        })
    }

    async fn datastore(&self) -> Result<&PostgresDatastore, PersistenceError> {
        self.datastore.get_or_try_init(|| self.options.clone().open()).await
    }
}

/// Returns whether connections are those of a pooler in transaction mode.
fn is_pooled(environment: &Environment) -> Result<bool, PersistenceError> {
    environment.boolean("POSTGRES_TRANSACTION_POOLER", false)
}

fn options(environment: &Environment) -> Result<PostgresOptions, PersistenceError> {
    let hosts = environment.required("POSTGRES_HOST")?;
    let mut options = PostgresOptions::new(environment.required("POSTGRES_DBNAME")?)
        .host_list(hosts, DEFAULT_PORT)
        .map_err(|error| environment.unusable("POSTGRES_HOST", &error))?
        .user(environment.required("POSTGRES_USER")?)
        .create_table(environment.boolean("CREATE_TABLE", true)?)
        .pre_ping(environment.boolean("POSTGRES_PRE_PING", false)?)
        .notify(environment.boolean("POSTGRES_NOTIFY", false)?)
        .transaction_pooler(is_pooled(environment)?)
        .conn_max_age(environment.seconds("POSTGRES_CONN_MAX_AGE")?);
    options = match environment.password_provider()? {
        Some(provider) => options.password_provider(move || {
            let provider = Arc::clone(&provider);
            async move { provider.password().await }
        }),
        None => options.password(environment.required("POSTGRES_PASSWORD")?),
    };
    if let Some(ports) = environment.get("POSTGRES_PORT") {
        options =
            options.host_list(hosts, ports).map_err(|error| environment.unusable("POSTGRES_PORT", &error))?;
    }
    if let Some(hosts) = environment.get("POSTGRES_READ_HOST") {
        let ports = environment.get("POSTGRES_READ_PORT");
        let wrong = |error| {
            environment.unusable(ports.map_or("POSTGRES_READ_HOST", |_| "POSTGRES_READ_PORT"), &error)
        };
        options = options.read_host_list(hosts, ports.unwrap_or(DEFAULT_PORT)).map_err(wrong)?;
    }
    if let Some(schema) = environment.get("POSTGRES_SCHEMA") {
        options = options.schema(schema);
    }
    if let Some(ordering) = environment.get("POSTGRES_ORDERING") {
        options = options
            .ordering(ordering.parse().map_err(|error| environment.unusable("POSTGRES_ORDERING", &error))?);
    }
    if let Some(mode) = environment.get("POSTGRES_SSLMODE") {
        options = options.sslmode(mode).map_err(|error| environment.unusable("POSTGRES_SSLMODE", &error))?;
    }
    if let Some(certificate) = environment.get("POSTGRES_SSLROOTCERT") {
        options = options.ssl_root_certificate(certificate);
    }
    with_bounds(options, environment)
}

fn with_bounds(
    mut options: PostgresOptions,
    environment: &Environment,
) -> Result<PostgresOptions, PersistenceError> {
    if let Some(timeout) = server_timeout(environment, "POSTGRES_LOCK_TIMEOUT")? {
        options = options.lock_timeout(timeout);
    }
    if let Some(timeout) = server_timeout(environment, "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT")? {
        options = options.idle_in_transaction_session_timeout(timeout);
    }
    if let Some(timeout) = environment.seconds("POSTGRES_CONNECT_TIMEOUT")? {
        options = options.connect_timeout(timeout);
    }
    if let Some(timeout) = environment.seconds("POSTGRES_RESPONSE_TIMEOUT")? {
        options = options.response_timeout(timeout);
    }
    if let Some(connections) = environment.count("POSTGRES_POOL_SIZE")? {
        options = options.pool_size(connections as usize);
    }
    if let Some(connections) = environment.count("POSTGRES_MAX_OVERFLOW")? {
        options = options.max_overflow(connections as usize);
    }
    if let Some(callers) = environment.count("POSTGRES_MAX_WAITING")? {
        options = options.max_waiting(callers as usize);
    }
    Ok(options)
}

/// A timeout that the server enforces, in whole seconds.
fn server_timeout(environment: &Environment, key: &str) -> Result<Option<Duration>, PersistenceError> {
    environment.whole_seconds_up_to(key, PostgresOptions::MAX_SERVER_TIMEOUT.as_secs())
}

impl Backend for Postgres {
    fn aggregate_recorder<'a>(
        &'a self,
        purpose: &'a str,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(Arc::new(datastore.aggregate_recorder_with(&self.application_name, purpose, tables).await?)
                as _)
        })
    }

    fn application_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynApplicationRecorder>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(Arc::new(datastore.application_recorder_with(&self.application_name, tables).await?) as _)
        })
    }

    fn tracking_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynTrackingRecorder>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(Arc::new(datastore.tracking_recorder_with(&self.application_name, tables).await?) as _)
        })
    }

    fn process_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynProcessRecorder>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(Arc::new(datastore.process_recorder_with(&self.application_name, tables).await?) as _)
        })
    }

    fn segment_recorder(&self) -> BoxFuture<'_, Arc<dyn DynSegmentRecorder>> {
        Box::pin(async {
            let datastore = self.datastore().await?;
            Ok(Arc::new(datastore.tracking_recorder(&self.application_name).await?) as _)
        })
    }

    fn projector(&self, projection: Box<dyn DynSqlProjection>) -> BoxFuture<'_, BoxConsumer> {
        Box::pin(async {
            let recorder = self.datastore().await?.tracking_recorder(&self.application_name).await?;
            let statements = PostgresStatements { projection, is_persistent: !self.is_pooled };
            Ok(BoxConsumer::new(recorder.projector(statements).await?))
        })
    }

    fn tracking_table(&self) -> Result<String, PersistenceError> {
        self.options.quoted_tracking_table(&self.application_name)
    }

    fn query(&self, query: Sql) -> BoxFuture<'_, Vec<SqlRow>> {
        Box::pin(async move {
            let rows = fetch(self.datastore().await?, &query).await;
            rows.map_err(|error| error.with_context(format_args!("query {:?}", query.postgres_text())))
        })
    }

    fn state_maintenance<'a>(
        &'a self,
        purpose: Option<&'a str>,
    ) -> BoxFuture<'a, Arc<dyn DynStateMaintenance>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(match purpose {
                Some(purpose) => {
                    Arc::new(datastore.aggregate_recorder(&self.application_name, purpose).await?) as _
                }
                None => Arc::new(datastore.application_recorder(&self.application_name).await?) as _,
            })
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            match self.datastore.get() {
                Some(datastore) => datastore.close().await,
                None => Ok(()),
            }
        })
    }
}

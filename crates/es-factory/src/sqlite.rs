//! The backend on SQLite.

use std::sync::Arc;

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynStateMaintenance, DynTrackingRecorder, PersistenceError, RecorderTables,
};
use es_sqlite::{SqliteDatastore, SqliteOptions};
use tokio::sync::OnceCell;

use crate::{
    Backend, BoxConsumer, DynSqlProjection, Environment, Sql, SqlRow,
    sql::{SqliteStatements, select},
};

#[derive(Debug)]
pub(crate) struct Sqlite {
    options: SqliteOptions,
    datastore: OnceCell<SqliteDatastore>,
}

impl Sqlite {
    pub(crate) fn new(environment: &Environment) -> Result<Self, PersistenceError> {
        let mut options = SqliteOptions::new(environment.required("SQLITE_DBNAME")?)
            .create_table(environment.boolean("CREATE_TABLE", true)?);
        if let Some(timeout) = environment.seconds("SQLITE_LOCK_TIMEOUT")? {
            options = options.lock_timeout(timeout);
        }
        Ok(Self { options, datastore: OnceCell::new() })
    }

    async fn datastore(&self) -> Result<&SqliteDatastore, PersistenceError> {
        self.datastore.get_or_try_init(|| self.options.clone().open()).await
    }
}

impl Backend for Sqlite {
    fn aggregate_recorder<'a>(
        &'a self,
        purpose: &'a str,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(async move {
            Ok(Arc::new(self.datastore().await?.aggregate_recorder_with(purpose, tables).await?) as _)
        })
    }

    fn application_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynApplicationRecorder>> {
        Box::pin(async move {
            Ok(Arc::new(self.datastore().await?.application_recorder_with(tables).await?) as _)
        })
    }

    fn tracking_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynTrackingRecorder>> {
        Box::pin(
            async move { Ok(Arc::new(self.datastore().await?.tracking_recorder_with(tables).await?) as _) },
        )
    }

    fn process_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynProcessRecorder>> {
        Box::pin(
            async move { Ok(Arc::new(self.datastore().await?.process_recorder_with(tables).await?) as _) },
        )
    }

    fn segment_recorder(&self) -> BoxFuture<'_, Arc<dyn DynSegmentRecorder>> {
        Box::pin(async { Ok(Arc::new(self.datastore().await?.tracking_recorder().await?) as _) })
    }

    fn projector(&self, projection: Box<dyn DynSqlProjection>) -> BoxFuture<'_, BoxConsumer> {
        Box::pin(async {
            let recorder = self.datastore().await?.tracking_recorder().await?;
            Ok(BoxConsumer::new(recorder.projector(SqliteStatements(projection)).await?))
        })
    }

    fn tracking_table(&self) -> Result<String, PersistenceError> {
        Ok("tracking".to_owned())
    }

    fn query(&self, query: Sql) -> BoxFuture<'_, Vec<SqlRow>> {
        Box::pin(async {
            let text = query.sqlite_text().to_owned();
            let rows = self.datastore().await?.read_with(move |connection| select(connection, &query)).await;
            rows.map_err(|error| error.with_context(format_args!("query {text:?}")))
        })
    }

    fn state_maintenance<'a>(
        &'a self,
        purpose: Option<&'a str>,
    ) -> BoxFuture<'a, Arc<dyn DynStateMaintenance>> {
        Box::pin(async move {
            let datastore = self.datastore().await?;
            Ok(match purpose {
                Some(purpose) => Arc::new(datastore.aggregate_recorder(purpose).await?) as _,
                None => Arc::new(datastore.application_recorder().await?) as _,
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

//! The options and the connections of a datastore, and reads that survive lost connections.

use std::sync::Arc;

use es_core::PersistenceError;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::{
    backoff::Backoff,
    pool::{Connections, Lease, LeaseError, LeaseKind},
    query::{self, FetchError, Fetched, Query},
    session::{self, Access},
};
use crate::{error, fault_hooks::FaultPoint, options::PostgresOptions};

#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) options: PostgresOptions,
    pub(crate) connections: Arc<Connections>,
    /// The payload of the notifications that the datastore sends. Its own listener ignores them.
    pub(crate) notify_payload: String,
}

impl Database {
    /// Connects to the server.
    pub(crate) async fn open(options: PostgresOptions) -> Result<Self, PersistenceError> {
        let connections = Arc::new(Connections::new(&options)?);
        connections.lease(LeaseKind::Read).await?.finish();
        Ok(Self { options, connections, notify_payload: Uuid::new_v4().simple().to_string() })
    }

    /// Returns the same database with another default schema, on the same connections.
    pub(crate) fn in_schema(&self, schema: String) -> Self {
        Self { options: self.options.clone().schema(schema), ..self.clone() }
    }

    pub(crate) async fn reached(&self, point: FaultPoint) {
        self.options.hooks.reached(point).await;
    }

    /// Fetches rows. If a connection is lost, retries on a new one, within the connect timeout.
    pub(crate) async fn fetch<T: Send>(
        &self,
        query: &Query,
        decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, PersistenceError> {
        self.fetch_for(LeaseKind::Read, query, decode).await
    }

    pub(crate) async fn fetch_for<T: Send>(
        &self,
        kind: LeaseKind,
        query: &Query,
        mut decode: impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send,
    ) -> Result<Vec<T>, PersistenceError> {
        // The time counts from the first failure, which may have taken long.
        let mut backoff = None;
        loop {
            let failed = match self.connections.lease(kind).await {
                Ok(mut lease) => match self.fetch_on(&mut lease, query, &mut decode).await {
                    Ok(Fetched { decoded, has_rest }) => {
                        // Closing the connection is cheaper than receiving the rest.
                        if !has_rest {
                            lease.finish();
                        }
                        return Ok(decoded);
                    }
                    Err(FetchError::Row(failed)) => return Err(failed),
                    Err(FetchError::Statement(failed)) => {
                        let is_lost = error::is_lost(&failed);
                        let failed = error::from_statement(query.operation, failed);
                        if !is_lost {
                            return Err(failed);
                        }
                        self.connections.purge();
                        failed
                    }
                },
                Err(LeaseError::NotConnected(failed)) if failed.is_transient() => failed,
                Err(failed) => return Err(failed.into()),
            };
            let backoff = backoff.get_or_insert_with(|| Backoff::within(self.options.connect_timeout));
            if !backoff.wait().await {
                return Err(failed);
            }
        }
    }

    async fn fetch_on<T: Send>(
        &self,
        lease: &mut Lease<'_>,
        query: &Query,
        decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
    ) -> Result<Fetched<T>, FetchError> {
        let backend = lease.backend();
        let connection: &mut PgConnection = lease;
        let fetching = async {
            let is_persistent = !self.options.transaction_pooler;
            let begin = match query.is_users {
                true => session::begin_for_user(&self.options, Access::ReadOnly),
                false if is_persistent => return query::fetch(connection, query, true, decode).await,
                false => session::begin(&self.options, Access::ReadOnly),
            };
            session::run(connection, &begin).await?;
            let rows = query::fetch(connection, query, is_persistent, decode).await?;
            if !rows.has_rest {
                session::run(connection, "COMMIT").await?;
            }
            Ok(rows)
        };
        self.connections.with_liveness_check(backend, fetching).await?
    }
}

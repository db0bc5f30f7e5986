//! The options and the connections of a datastore, and reads that survive lost connections.

use std::sync::Arc;

use es_core::PersistenceError;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::{
    backoff::Backoff,
    connector::ServerRole,
    pool::{Connections, Lease, LeaseError, LeaseKind},
    query::{self, FetchError, Fetched, Query},
    standbys::Standbys,
};
use crate::{error, fault_hooks::FaultPoint, options::PostgresOptions};

#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) options: PostgresOptions,
    pub(crate) connections: Arc<Connections>,
    /// The standbys from which notifications are read, if there are any.
    pub(crate) standbys: Option<Arc<Standbys>>,
    /// The payload of the notifications that the datastore sends. Its own listener ignores them.
    pub(crate) notify_payload: String,
}

impl Database {
    /// Connects to the server. Standbys are connected to when they are read from.
    pub(crate) async fn open(options: PostgresOptions) -> Result<Self, PersistenceError> {
        let connections = Arc::new(Connections::new(&options, ServerRole::Primary)?);
        let standbys = (!options.read_hosts.is_empty()).then(|| Standbys::new(&options)).transpose()?;
        let standbys = standbys.map(Arc::new);
        connections.lease(LeaseKind::Read).await?.finish();
        let notify_payload = Uuid::new_v4().simple().to_string();
        Ok(Self { options, connections, standbys, notify_payload })
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.connections.close().await;
        if let Some(standbys) = &self.standbys {
            standbys.connections.close().await;
        }
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
                Ok(mut lease) => match self.fetch_checked(&mut lease, query, &mut decode).await {
                    Ok(Fetched { decoded, has_rest }) => {
                        // Closing the connection is cheaper than receiving the rest.
                        if !has_rest {
                            lease.finish();
                        }
                        return Ok(decoded);
                    }
                    Err(FetchError::Row(failed)) => return Err(failed),
                    Err(FetchError::Statement(failed)) => {
                        // Other idle connections have the statement prepared, too.
                        let is_worth_retry = error::is_lost(&failed) || error::is_plan_outdated(&failed);
                        let failed = error::from_statement(query.operation, failed);
                        if !is_worth_retry {
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

    async fn fetch_checked<T: Send>(
        &self,
        lease: &mut Lease<'_>,
        query: &Query,
        decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
    ) -> Result<Fetched<T>, FetchError> {
        let backend = lease.backend();
        let fetching = query::fetch_on(&self.options, lease, query, decode);
        self.connections.with_liveness_check(backend, fetching).await?
    }
}

//! The appender of a recorder, made again if the layout of the tracking table has changed: the Python
//! library's version 9.5 migrates tables of version 9.1 when it opens them.

use std::sync::Arc;

use es_core::PersistenceError;
use parking_lot::RwLock;

use super::{
    append::{AppendError, Appender, Scope},
    outcome::Outcome,
    request::Batch,
};
use crate::{
    connection::{Backoff, Database, LeaseKind},
    error::ErrorClass,
    schema::{self, CatalogState, TableSpec},
};

#[derive(Debug)]
pub(crate) struct AppenderCache {
    pub(crate) database: Arc<Database>,
    spec: TableSpec,
    appender: RwLock<Arc<Appender>>,
}

impl AppenderCache {
    pub(crate) fn new(database: Arc<Database>, spec: TableSpec, tables: CatalogState) -> Self {
        let appender = RwLock::new(Arc::new(Appender::new(tables, &database.options)));
        Self { database, spec, appender }
    }

    pub(crate) fn get(&self) -> Arc<Appender> {
        Arc::clone(&self.appender.read())
    }

    /// Inspects the tables again. Tables that are missing are not created: they would replace the tables of a
    /// recorder in use by empty ones.
    pub(crate) async fn refresh(&self) -> Result<(), PersistenceError> {
        let tables = schema::prepare(&self.database, &self.spec, false).await?;
        *self.appender.write() = Arc::new(Appender::new(tables, &self.database.options));
        Ok(())
    }

    /// Inspects the tables again after a failure in the caller's transaction, if they may have changed. An
    /// error is logged: the caller gets the error of the failure.
    pub(crate) async fn refresh_if(&self, is_layout_changed: bool) {
        if is_layout_changed && let Err(error) = self.refresh().await {
            tracing::debug!(%error, "inspecting the tables again failed");
        }
    }

    /// Appends one batch, also with the first position of its application; see [`append`](Self::append).
    pub(super) async fn append_one(&self, batch: Batch<'_>) -> Result<Outcome, AppendError> {
        let mut outcomes = self.append(&[batch], Scope::Own).await?;
        if let [Outcome::FirstPosition] = *outcomes {
            outcomes = self.append(&[batch], Scope::FirstPosition).await?;
        }
        outcomes.pop().ok_or_else(|| AppendError::internal("an append of one request has no outcome"))
    }

    /// Appends batches on a connection that accepts writes: of several hosts, another one may do so now.
    pub(super) async fn append(
        &self,
        batches: &[Batch<'_>],
        scope: Scope,
    ) -> Result<Vec<Outcome>, AppendError> {
        let Database { options, connections, .. } = &*self.database;
        let mut backoff = Backoff::within(options.connect_timeout);
        let mut is_refreshed = false;
        loop {
            let appender = self.get();
            let leased = connections.lease(LeaseKind::Write).await;
            let mut lease = leased.map_err(|failed| AppendError::unavailable(failed.into()))?;
            let backend = lease.backend();
            let appending = appender.append(&mut lease, batches, scope);
            let appended = connections.with_liveness_check(backend, appending).await;
            let failed = match appended.unwrap_or_else(|no_answer| Err(appender.failed(no_answer))) {
                Ok(outcomes) => {
                    lease.finish();
                    return Ok(outcomes);
                }
                Err(failed) => failed,
            };
            if failed.is_connection_usable {
                lease.finish();
            } else {
                drop(lease);
            }
            if failed.class == ErrorClass::Lost || failed.read_only {
                connections.purge();
            }
            if failed.is_layout_changed && !is_refreshed {
                is_refreshed = true;
                self.refresh().await.map_err(AppendError::unavailable)?;
                continue;
            }
            if !(failed.read_only && options.hosts.len() > 1 && backoff.wait().await) {
                return Err(failed);
            }
        }
    }
}

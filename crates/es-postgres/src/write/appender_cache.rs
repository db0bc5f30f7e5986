//! The appender of a recorder, replaced when the tracking table has another layout than before: the Python
//! library's version 9.5 migrates tables of version 9.1 when it opens them.

use std::sync::{Arc, PoisonError, RwLock};

use es_core::PersistenceError;

use super::append::Appender;
use crate::{
    PostgresDatastore,
    schema::{CatalogState, TableSpec},
};

#[derive(Debug)]
pub(crate) struct AppenderCache {
    datastore: PostgresDatastore,
    spec: TableSpec,
    appender: RwLock<Arc<Appender>>,
}

impl AppenderCache {
    pub(crate) fn new(datastore: PostgresDatastore, spec: TableSpec, tables: CatalogState) -> Self {
        let appender = RwLock::new(Arc::new(Appender::new(tables, &datastore.0.options)));
        Self { datastore, spec, appender }
    }

    pub(crate) fn get(&self) -> Arc<Appender> {
        // No code panics while it holds the lock.
        Arc::clone(&self.appender.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Inspects the tables again. Tables that are missing are not created: they would replace the tables of a
    /// recorder in use by empty ones.
    pub(crate) async fn refresh(&self) -> Result<(), PersistenceError> {
        let tables = self.datastore.prepare(&self.spec, false).await?;
        let appender = Arc::new(Appender::new(tables, &self.datastore.0.options));
        *self.appender.write().unwrap_or_else(PoisonError::into_inner) = appender;
        Ok(())
    }
}

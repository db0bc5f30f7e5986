//! The appender of a recorder: made anew when what stands in the database is not what stood there
//! when it was made, because somebody dropped a function or migrated a table.

use std::sync::{Arc, PoisonError, RwLock};

use es_core::PersistenceError;

use crate::{
    PostgresDatastore,
    append::Appender,
    schema::{Create, Standing, Wanted},
};

#[derive(Debug)]
pub(crate) struct CurrentAppender {
    datastore: PostgresDatastore,
    tables: Wanted,
    appender: RwLock<Arc<Appender>>,
}

impl CurrentAppender {
    pub(crate) fn new(datastore: PostgresDatastore, tables: Wanted, standing: Standing) -> Self {
        let appender = RwLock::new(Arc::new(Appender::new(standing, &datastore.0.options)));
        Self { datastore, tables, appender }
    }

    pub(crate) fn get(&self) -> Arc<Appender> {
        // Nothing panics while it is held.
        Arc::clone(&self.appender.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again at what stands.
    pub(crate) async fn renew(&self) -> Result<(), PersistenceError> {
        let options = &self.datastore.0.options;
        let create = if options.create_table { Create::Functions } else { Create::Nothing };
        let standing = self.datastore.prepare(&self.tables, create).await?;
        let appender = Arc::new(Appender::new(standing, options));
        *self.appender.write().unwrap_or_else(PoisonError::into_inner) = appender;
        Ok(())
    }
}

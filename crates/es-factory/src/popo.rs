//! The in-memory backend.

use std::sync::Arc;

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynSegmentRecorder,
    DynTrackingRecorder, PersistenceError, RecorderTables,
};
use es_popo::PopoDatastore;

use crate::Backend;

impl Backend for PopoDatastore {
    fn aggregate_recorder<'a>(
        &'a self,
        purpose: &'a str,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(async move {
            check_names(tables)?;
            Ok(Arc::new(self.aggregate_recorder(purpose)?) as _)
        })
    }

    fn application_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynApplicationRecorder>> {
        Box::pin(async move {
            check_names(tables)?;
            Ok(Arc::new(self.application_recorder()?) as _)
        })
    }

    fn tracking_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynTrackingRecorder>> {
        Box::pin(async move {
            check_names(tables)?;
            Ok(Arc::new(self.tracking_recorder()?) as _)
        })
    }

    fn process_recorder<'a>(
        &'a self,
        tables: &'a RecorderTables,
    ) -> BoxFuture<'a, Arc<dyn DynProcessRecorder>> {
        Box::pin(async move {
            check_names(tables)?;
            Ok(Arc::new(self.process_recorder()?) as _)
        })
    }

    fn segment_recorder(&self) -> BoxFuture<'_, Arc<dyn DynSegmentRecorder>> {
        Box::pin(async { Ok(Arc::new(self.tracking_recorder()?) as _) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.close() })
    }
}

/// Refuses names, which would have no effect.
fn check_names(tables: &RecorderTables) -> Result<(), PersistenceError> {
    if tables.events_name().is_none() && tables.tracking_name().is_none() {
        return Ok(());
    }
    Err(PersistenceError::not_supported("recorders in memory have no tables to name: use purposes instead"))
}

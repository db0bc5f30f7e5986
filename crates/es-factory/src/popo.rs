//! The in-memory backend.

use std::sync::Arc;

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynTrackingRecorder,
};
use es_popo::PopoDatastore;

use crate::Backend;

impl Backend for PopoDatastore {
    fn aggregate_recorder<'a>(&'a self, purpose: &'a str) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(async move { Ok(Arc::new(self.aggregate_recorder(purpose)?) as _) })
    }

    fn application_recorder(&self) -> BoxFuture<'_, Arc<dyn DynApplicationRecorder>> {
        Box::pin(async { Ok(Arc::new(self.application_recorder()?) as _) })
    }

    fn tracking_recorder(&self) -> BoxFuture<'_, Arc<dyn DynTrackingRecorder>> {
        Box::pin(async { Ok(Arc::new(self.tracking_recorder()?) as _) })
    }

    fn process_recorder(&self) -> BoxFuture<'_, Arc<dyn DynProcessRecorder>> {
        Box::pin(async { Ok(Arc::new(self.process_recorder()?) as _) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.close() })
    }
}

//! The in-memory backend.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynTrackingRecorder,
    Recorder,
};
use es_popo::{PopoAggregateRecorder, PopoProcessRecorder};

use crate::Backend;

/// One datastore for each factory: its recorders share their events, as those of a database do.
#[derive(Debug, Default)]
pub(crate) struct Popo {
    events: PopoProcessRecorder,
    purposes: Mutex<HashMap<String, PopoAggregateRecorder>>,
}

impl Popo {
    fn of_purpose(&self, purpose: &str) -> PopoAggregateRecorder {
        // No code panics while the map is locked.
        let mut purposes = self.purposes.lock().unwrap_or_else(PoisonError::into_inner);
        purposes.entry(purpose.to_owned()).or_default().clone()
    }

    fn all_of_purposes(&self) -> Vec<PopoAggregateRecorder> {
        let purposes = self.purposes.lock().unwrap_or_else(PoisonError::into_inner);
        purposes.values().cloned().collect()
    }
}

impl Backend for Popo {
    fn aggregate_recorder<'a>(&'a self, purpose: &'a str) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>> {
        Box::pin(async move { Ok(Arc::new(self.of_purpose(purpose)) as _) })
    }

    fn application_recorder(&self) -> BoxFuture<'_, Arc<dyn DynApplicationRecorder>> {
        Box::pin(async { Ok(Arc::new(self.events.clone()) as _) })
    }

    fn tracking_recorder(&self) -> BoxFuture<'_, Arc<dyn DynTrackingRecorder>> {
        Box::pin(async { Ok(Arc::new(self.events.clone()) as _) })
    }

    fn process_recorder(&self) -> BoxFuture<'_, Arc<dyn DynProcessRecorder>> {
        Box::pin(async { Ok(Arc::new(self.events.clone()) as _) })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.events.close().await?;
            for recorder in self.all_of_purposes() {
                recorder.close().await?;
            }
            Ok(())
        })
    }
}

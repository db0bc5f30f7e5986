//! The recorders of one handle of a datastore.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynTrackingRecorder,
    PersistenceError, ProcessRecorder, Recorder,
};

/// A recorder of each tier, on one handle of a datastore.
#[derive(Clone, Debug)]
pub struct Recorders {
    /// Events, and positions in the same commit.
    pub process: Arc<dyn DynProcessRecorder>,
    /// The same events.
    pub application: Arc<dyn DynApplicationRecorder>,
    /// The same positions.
    pub tracking: Arc<dyn DynTrackingRecorder>,
    /// Snapshots, which are no events.
    pub snapshots: Arc<dyn DynAggregateRecorder>,
}

impl Recorders {
    /// One recorder of events and positions, for all that need either.
    pub fn of(process: impl ProcessRecorder + 'static, snapshots: impl AggregateRecorder + 'static) -> Self {
        let process = Arc::new(process);
        Self {
            application: Arc::clone(&process) as Arc<dyn DynApplicationRecorder>,
            tracking: Arc::clone(&process) as Arc<dyn DynTrackingRecorder>,
            process,
            snapshots: Arc::new(snapshots),
        }
    }
}

impl Recorder for Recorders {
    async fn close(&self) -> Result<(), PersistenceError> {
        let closed = [
            self.process.close().await,
            self.application.close().await,
            self.tracking.close().await,
            self.snapshots.close().await,
        ];
        closed.into_iter().collect()
    }
}

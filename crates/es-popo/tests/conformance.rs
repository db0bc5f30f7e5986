//! The recorders in memory keep every rule.

use es_conformance::Fixture;

/// One recorder and its clones: there is no datastore behind it that another one could open.
struct InMemory<R>(R);

impl<R: es_core::Recorder + Clone + 'static> Fixture for InMemory<R> {
    type Recorder = R;

    async fn open(&self) -> R {
        self.0.clone()
    }

    fn outlives_recorders(&self) -> bool {
        false
    }
}

mod aggregate_recorder {
    es_conformance::aggregate_recorder_tests!(
        async || crate::InMemory(es_popo::PopoAggregateRecorder::new())
    );
}

mod application_recorder {
    es_conformance::application_recorder_tests!(async || {
        crate::InMemory(es_popo::PopoApplicationRecorder::new())
    });
}

mod tracking_recorder {
    es_conformance::tracking_recorder_tests!(async || crate::InMemory(es_popo::PopoTrackingRecorder::new()));
}

mod process_recorder {
    es_conformance::process_recorder_tests!(async || crate::InMemory(es_popo::PopoProcessRecorder::new()));
}

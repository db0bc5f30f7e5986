//! The recorders in memory keep every rule.
#![allow(clippy::unwrap_used, reason = "a test unwraps the values that it expects")]

use es_conformance::Fixture;
use es_core::{PersistenceError, Recorder};
use es_popo::PopoDatastore;

/// A datastore, and how recorders on it are made.
struct InMemory<R>(PopoDatastore, fn(&PopoDatastore) -> Result<R, PersistenceError>);

impl<R: Recorder + 'static> Fixture for InMemory<R> {
    type Recorder = R;

    async fn open(&self) -> R {
        let Self(datastore, make) = self;
        make(datastore).unwrap()
    }
}

mod aggregate_recorder {
    es_conformance::aggregate_recorder_tests!(async || {
        crate::InMemory(super::PopoDatastore::new(), |datastore| datastore.aggregate_recorder("snapshots"))
    });
}

mod application_recorder {
    es_conformance::application_recorder_tests!(async || {
        crate::InMemory(super::PopoDatastore::new(), super::PopoDatastore::application_recorder)
    });
}

mod tracking_recorder {
    es_conformance::tracking_recorder_tests!(async || {
        crate::InMemory(super::PopoDatastore::new(), super::PopoDatastore::tracking_recorder)
    });
}

mod process_recorder {
    es_conformance::process_recorder_tests!(async || {
        crate::InMemory(super::PopoDatastore::new(), super::PopoDatastore::process_recorder)
    });
}

/// Closing the datastore closes all recorders, also those of a purpose, and it makes no further ones.
#[tokio::test]
async fn closing_the_datastore_closes_every_recorder() {
    use es_core::{AggregateRecorder, EventRange, uuid::Uuid};

    let datastore = PopoDatastore::new();
    let (events, snapshots) =
        (datastore.process_recorder().unwrap(), datastore.aggregate_recorder("a").unwrap());
    datastore.close().unwrap();
    datastore.close().unwrap();
    assert!(events.select_events(Uuid::nil(), EventRange::all()).await.is_err());
    assert!(snapshots.select_events(Uuid::nil(), EventRange::all()).await.is_err());
    assert!(datastore.tracking_recorder().is_err() && datastore.aggregate_recorder("b").is_err());
}

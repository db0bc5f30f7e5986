//! State machine tests: PostgreSQL returns the same results as the recorders in memory, for all operations.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;
use es_conformance::{
    Fixture,
    machine::{Recorders, agrees},
};
use es_popo::{PopoAggregateRecorder, PopoProcessRecorder};

/// A schema, in which each handle has connections of its own, as another process would.
struct Database {
    schema: Schema,
    ordering: NotificationOrdering,
}

impl Fixture for Database {
    type Recorder = Recorders;

    async fn open(&self) -> Recorders {
        let options = self.schema.options().ordering(self.ordering).pool_size(3).max_overflow(3);
        // The cases often wait for commits of the other handle.
        let datastore = options.poll_interval(Duration::from_millis(5)).open().await.unwrap();
        Recorders {
            process: Arc::new(datastore.process_recorder("bank").await.unwrap()),
            application: Arc::new(datastore.application_recorder("bank").await.unwrap()),
            tracking: Arc::new(datastore.tracking_recorder("bank").await.unwrap()),
            snapshots: Arc::new(datastore.aggregate_recorder("bank", "snapshots").await.unwrap()),
        }
    }
}

fn oracle() -> Recorders {
    Recorders::of(PopoProcessRecorder::new(), PopoAggregateRecorder::new())
}

fn answers_as_the_oracle_does(ordering: NotificationOrdering) {
    agrees(8, oracle, async || Database { schema: Schema::create().await, ordering });
}

#[test]
fn with_the_table_lock_it_answers_as_the_oracle_does() {
    answers_as_the_oracle_does(NotificationOrdering::Serialized);
}

#[test]
fn in_parallel_it_answers_as_the_oracle_does() {
    answers_as_the_oracle_does(NotificationOrdering::Parallel);
}

//! The state machines disagree with recorders that have a defect, and with no others.

#![expect(clippy::expect_used, reason = "these are tests")]

#[allow(dead_code, reason = "which rule a defect breaks is another test's matter")]
mod broken;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};

use broken::{BrokenFixture, BrokenRecorder, Defect};
use es_conformance::{
    Fixture,
    machine::{Recorders, agrees},
};
use es_core::{AggregateRecorder, EventRange, PersistenceError, Recorder, StoredEvent, uuid::Uuid};
use es_popo::{PopoAggregateRecorder, PopoProcessRecorder};

/// Recorders with a defect, and others for snapshots without.
struct BrokenDatastore {
    events: BrokenFixture,
    snapshots: BrokenFixture,
}

/// Gives no ids.
#[derive(Debug)]
struct Snapshots(BrokenRecorder);

impl Fixture for BrokenDatastore {
    type Recorder = Recorders;

    async fn open(&self) -> Recorders {
        Recorders::of(self.events.open().await, Snapshots(self.snapshots.open().await))
    }

    /// Some defects keep a follower waiting for what never comes.
    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }
}

impl Recorder for Snapshots {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.0.close().await
    }
}

impl AggregateRecorder for Snapshots {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.0.insert_events(events).await.map(|_| Vec::new())
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.select_events(originator_id, range).await
    }
}

fn is_noticed(defect: Option<Defect>) -> bool {
    let oracle = || Recorders::of(PopoProcessRecorder::new(), PopoAggregateRecorder::new());
    let make_fixture =
        async || BrokenDatastore { events: BrokenFixture::new(defect), snapshots: BrokenFixture::new(None) };
    catch_unwind(AssertUnwindSafe(|| agrees(64, oracle, make_fixture))).is_err()
}

#[test]
fn the_machines_agree_with_a_recorder_without_defect() {
    assert!(!is_noticed(None));
}

#[test]
fn the_machines_disagree_with_defects() {
    let unnoticed: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> =
            Defect::ALL.iter().map(|defect| (defect, scope.spawn(|| is_noticed(Some(*defect))))).collect();
        runs.into_iter()
            .filter_map(|(defect, run)| (!run.join().expect("a run should finish")).then_some(*defect))
            .collect()
    });
    assert_eq!(unnoticed, []);
}

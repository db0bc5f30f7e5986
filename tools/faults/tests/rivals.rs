//! Two instances of one processor that take batches of different sizes of the same notifications.
//!
//! The larger one ends beyond the smaller one's position. When that alone decided, both were recorded,
//! and the notifications of the smaller one had their effects twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::sync::Arc;

use es_core::{
    ApplicationRecorder, Conflict, NotificationSelection, ProcessRecorder, StoredEvent, Tracking,
    TrackingRecorder,
};
use es_faults::{
    effects,
    history::Event,
    kill_point::KillPoint,
    test_database::{Backend, Recorder, TestDatabase},
};
use es_popo::PopoProcessRecorder;

fn batch(first: i64, last: i64) -> (Vec<StoredEvent>, Tracking) {
    let event = |(index, id): (usize, i64)| {
        Event { aggregate: fastrand::u64(..), version: 1, put: id.to_string(), index }.stored(0)
    };
    ((first..=last).enumerate().map(event).collect(), Tracking::spanning("bank", first, last).unwrap())
}

async fn record(recorder: &Recorder, first: i64, last: i64) -> bool {
    let (events, tracking) = batch(first, last);
    match recorder.insert_events_with_tracking(events, tracking).await {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.conflict(), Some(Conflict::Tracking { .. })), "{error:?}");
            false
        }
    }
}

async fn check(recorder: Recorder) {
    assert!(record(&recorder, 1, 4).await);
    assert!(!record(&recorder, 1, 8).await, "the first four were recorded before");
    assert!(!record(&recorder, 4, 8).await, "so was the fourth");
    assert!(record(&recorder, 5, 8).await);
    // At the same time, and so in one group commit, or in two of two connections.
    for round in 1..=20 {
        let position = recorder.max_tracking_id("bank").await.unwrap().unwrap();
        let all = recorder.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
        let ids: Vec<_> = (1..=position).collect();
        assert_eq!(effects::of(&all), ids, "one effect for each notification, before round {round}");
        let [first, short, long] = [position + 1, position + 2, position + 5];
        let outcomes = tokio::join!(
            record(&recorder, first, long),
            record(&recorder, first, short),
            record(&recorder, first, long),
            record(&recorder, first, first),
        );
        let recorded = [outcomes.0, outcomes.1, outcomes.2, outcomes.3];
        assert_eq!(recorded.iter().filter(|is_recorded| **is_recorded).count(), 1, "round {round}");
    }
    let tracking = Tracking::new("other", 9).unwrap();
    recorder.insert_tracking(tracking.clone()).await.unwrap();
    assert!(recorder.insert_tracking(Tracking::spanning("other", 9, 12).unwrap()).await.is_err());
    recorder.insert_tracking(Tracking::spanning("other", 10, 12).unwrap()).await.unwrap();
}

async fn check_backend(backend: Backend) {
    if !Backend::available().contains(&backend) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = format!("rivals_{backend:?}").to_lowercase();
    let database = TestDatabase::create(backend, directory.path(), &name).await.unwrap();
    check(database.open(&KillPoint::new(None)).await.unwrap()).await;
    database.delete().await.unwrap();
}

#[tokio::test]
async fn in_memory() {
    check(Arc::new(PopoProcessRecorder::new())).await;
}

#[tokio::test]
async fn on_sqlite() {
    check_backend(Backend::Sqlite).await;
}

#[tokio::test]
async fn on_postgres_serialized() {
    check_backend(Backend::Postgres).await;
}

#[tokio::test]
async fn on_postgres_without() {
    check_backend(Backend::Parallel).await;
}

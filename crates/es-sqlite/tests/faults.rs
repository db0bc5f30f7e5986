//! Faults at every step of a write: outcomes are correct, nothing is lost or written twice, and the recorder
//! continues to work.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{num::NonZeroU64, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, EventRange, PersistenceError, ProcessRecorder,
    Tracking, TrackingRecorder,
};
use es_sqlite::{Fault, FaultPoint, SqliteOptions, SqliteProcessRecorder};
use rusqlite::Connection;
use support::{
    Faults, accepted, application_recorder, database, event, event_of, events, failing_gate, gate, id,
    process_recorder,
};

async fn failing(path: &str, faults: impl IntoIterator<Item = (FaultPoint, Fault)>) -> SqliteProcessRecorder {
    let options = SqliteOptions::new(path).hooks(Faults::new(faults));
    process_recorder(options).await
}

/// The recorder has nothing of aggregate 1, and works.
async fn assert_nothing_recorded(recorder: &SqliteProcessRecorder) {
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), []);
    let ids = recorder.insert_events(events(1, 1..=2)).await.unwrap();
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=2));
    assert_eq!(recorder.max_notification_id().await.unwrap(), ids.last().copied());
}

fn assert_operational(error: &PersistenceError, is_transient: bool) {
    assert_eq!(error.kind(), ErrorKind::Operational, "{error:?}");
    assert_eq!(error.is_transient(), is_transient, "{error:?}");
}

#[tokio::test]
async fn a_failed_step_records_nothing() {
    for (step, fault, is_transient) in [
        (FaultPoint::Begin, Fault::Busy, true),
        (FaultPoint::Append, Fault::Io, false),
        (FaultPoint::Commit, Fault::Busy, true),
        (FaultPoint::Commit, Fault::Full, false),
        (FaultPoint::Commit, Fault::Io, false),
    ] {
        let (_directory, path) = database();
        let recorder = failing(&path, [(step, fault)]).await;
        let error = recorder.insert_events(events(1, 1..=2)).await.unwrap_err();
        assert_operational(&error, is_transient);
        assert_nothing_recorded(&recorder).await;
    }
}

#[tokio::test]
async fn a_commit_that_took_effect_is_acknowledged_although_it_was_reported_as_failed() {
    for fault in [Fault::Busy, Fault::Full, Fault::Io] {
        let (_directory, path) = database();
        let recorder = failing(&path, [(FaultPoint::Report, fault)]).await;
        let position = Tracking::new("upstream", 3).unwrap();
        let ids = recorder.insert_events_with_tracking(events(1, 1..=2), position).await.unwrap();
        assert_eq!(ids, [1, 2]);
        assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=2));
        assert_eq!(recorder.insert_events(events(1, 3..=3)).await.unwrap(), [3]);
    }
}

/// Another process may have recorded the same position since: the recorded position proves nothing.
#[tokio::test]
async fn a_position_alone_leaves_the_outcome_unknown() {
    let (_directory, path) = database();
    let recorder = failing(&path, [(FaultPoint::Report, Fault::Io)]).await;
    let error = recorder.insert_tracking(Tracking::new("upstream", 3).unwrap()).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_position_that_is_missing_was_not_recorded() {
    let (_directory, path) = database();
    let recorder = failing(&path, [(FaultPoint::Commit, Fault::Io)]).await;
    let position = Tracking::new("upstream", 3).unwrap();
    let error = recorder.insert_tracking(position.clone()).await.unwrap_err();
    assert_operational(&error, false);
    recorder.insert_tracking(position).await.unwrap();
}

/// If the disk is too full for the group, each request is written alone.
#[tokio::test]
async fn a_group_on_a_full_disk_is_retried_individually() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let full = NonZeroU64::new(400 << 10).unwrap();
    let options = SqliteOptions::new(&path).max_database_bytes(full).hooks(hook);
    let recorder = application_recorder(options).await;

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let huge: Vec<_> = (1..=20).map(|version| event_of(2, version, vec![7; 100 << 10])).collect();
    let huge = accepted(recorder.insert_events(huge));
    let large = accepted(recorder.insert_events(vec![event_of(3, 1, vec![7; 600 << 10])]));
    let small = accepted(recorder.insert_events(events(4, 1..=3)));
    gate.open();

    assert_eq!(first.await.unwrap(), [1]);
    assert_operational(&huge.await.unwrap_err(), false);
    assert_operational(&large.await.unwrap_err(), false);
    assert_eq!(small.await.unwrap(), [2, 3, 4]);
    assert_eq!(recorder.select_events(id(2), EventRange::all()).await.unwrap(), []);
    assert_eq!(recorder.select_events(id(3), EventRange::all()).await.unwrap(), []);
    assert_eq!(recorder.insert_events(vec![event(5, 1)]).await.unwrap(), [5]);
}

#[tokio::test]
async fn a_commit_on_a_full_disk_is_retried_individually() {
    let (_directory, path) = database();
    let (hook, mut gate) = failing_gate(FaultPoint::Begin, [(FaultPoint::Commit, Fault::Full)]);
    let recorder = application_recorder(SqliteOptions::new(&path).hooks(hook)).await;
    let first = accepted(recorder.insert_events(events(1, 1..=2)));
    gate.reached().await;
    let taken = accepted(recorder.insert_events(events(1, 2..=3)));
    let last = accepted(recorder.insert_events(events(2, 1..=2)));
    gate.open();
    assert_eq!(first.await.unwrap(), [1, 2]);
    assert!(taken.await.unwrap_err().is_conflict());
    assert_eq!(last.await.unwrap(), [3, 4]);
    // The failed one, and one for each recorded request: a refused request alone in its transaction has
    // nothing to commit.
    assert_eq!(gate.steps.commits(), 3);
}

#[tokio::test]
async fn a_locked_database_is_an_error_of_every_waiting_request() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let options = SqliteOptions::new(&path).lock_timeout(Duration::from_millis(50)).hooks(hook);
    let recorder = process_recorder(options).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    let calls: Vec<_> =
        (1..=3).map(|version| accepted(recorder.insert_events(vec![event(1, version)]))).collect();
    gate.reached().await;
    gate.open();
    for call in calls {
        assert_operational(&call.await.unwrap_err(), true);
    }
    assert_eq!(recorder.max_notification_id().await.unwrap(), None, "readers do not wait");
    other.execute_batch("ROLLBACK").unwrap();
    assert_nothing_recorded(&recorder).await;
}

/// The transaction that was to overwrite the log stayed open, and with it the lock on the file.
#[tokio::test]
async fn a_disk_that_fails_again_leaves_the_outcome_unknown_and_no_lock() {
    let (_directory, path) = database();
    let recorder =
        failing(&path, [(FaultPoint::Commit, Fault::Io), (FaultPoint::Overwrite, Fault::Io)]).await;
    let error = recorder.insert_events(events(1, 1..=2)).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(Duration::ZERO).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
    assert_nothing_recorded(&recorder).await;
}

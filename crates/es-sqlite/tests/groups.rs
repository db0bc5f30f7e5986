//! Group commit: independent outcomes, limits, cancellation, closing.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::num::{NonZeroU32, NonZeroUsize};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Conflict, ErrorKind, EventRange, NotificationSelection,
    ProcessRecorder, Recorder, Tracking, TrackingRecorder,
};
use es_sqlite::{FaultPoint, SqliteOptions};
use support::{accepted, database, event, event_of, events, gate, id, open};

#[tokio::test]
async fn requests_that_wait_share_one_commit_and_keep_their_own_outcomes() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let datastore = SqliteOptions::new(&path).hooks(hook).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let position = |id| Tracking::new("upstream", id).unwrap();

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let batch = accepted(recorder.insert_events(events(2, 1..=3)));
    let late = accepted(recorder.insert_events(vec![event(3, 1), event(1, 1), event(3, 2)]));
    let tracked = accepted(recorder.insert_events_with_tracking(events(4, 1..=2), position(5)));
    let same = accepted(recorder.insert_events_with_tracking(vec![event(5, 1)], position(5)));
    let twice = accepted(recorder.insert_events(vec![event(2, 3)]));
    let last = accepted(recorder.insert_events(vec![event(6, 1)]));
    gate.open();

    assert_eq!(first.await.unwrap(), [1]);
    assert_eq!(batch.await.unwrap(), [2, 3, 4]);
    let taken = |originator, originator_version| Conflict::Version {
        originator_id: id(originator),
        originator_version,
    };
    assert_eq!(late.await.unwrap_err().conflict(), Some(&taken(1, 1)));
    assert_eq!(tracked.await.unwrap(), [5, 6]);
    let refused = Conflict::Tracking { application_name: "upstream".to_owned(), notification_id: 5 };
    assert_eq!(same.await.unwrap_err().conflict(), Some(&refused));
    assert_eq!(twice.await.unwrap_err().conflict(), Some(&taken(2, 3)));
    assert_eq!(last.await.unwrap(), [7]);

    assert_eq!(gate.steps.commits(), 2, "one for the first request, one for all that waited");
    let recorded = recorder.select_notifications(NotificationSelection::new(100)).await.unwrap();
    let ids: Vec<_> = recorded.iter().map(|notification| notification.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(recorder.select_events(id(3), EventRange::all()).await.unwrap(), []);
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(5));
}

#[tokio::test]
async fn a_request_of_more_than_a_group_takes_is_a_group_of_its_own() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let ten = NonZeroUsize::new(10).unwrap();
    let datastore = SqliteOptions::new(&path).group_rows(ten).hooks(hook).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let small = [
        accepted(recorder.insert_events(events(2, 1..=5))),
        accepted(recorder.insert_events(events(3, 1..=5))),
    ];
    let huge = accepted(recorder.insert_events(events(4, 1..=500)));
    let after = accepted(recorder.insert_events(vec![event(5, 1)]));
    gate.open();

    first.await.unwrap();
    for call in small {
        assert_eq!(call.await.unwrap().len(), 5);
    }
    assert_eq!(huge.await.unwrap().len(), 500);
    assert_eq!(after.await.unwrap(), [512]);
    assert_eq!(gate.steps.commits(), 4);
}

#[tokio::test]
async fn groups_are_bounded_in_bytes() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Commit);
    let bytes = NonZeroUsize::new(4_000).unwrap();
    let datastore = SqliteOptions::new(&path).group_bytes(bytes).hooks(hook).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let calls: Vec<_> =
        (2..6).map(|n| accepted(recorder.insert_events(vec![event_of(n, 1, vec![0; 1_700])]))).collect();
    gate.open();
    first.await.unwrap();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(gate.steps.commits(), 3, "two of the four fit in a group");
}

#[tokio::test]
async fn callers_wait_for_room_in_the_queue() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let room = NonZeroU32::new(4_000).unwrap();
    let datastore = SqliteOptions::new(&path).queue_bytes(room).hooks(hook).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();

    let first = accepted(recorder.insert_events(vec![event_of(1, 1, vec![0; 3_000])]));
    gate.reached().await;
    let cancelled = accepted(recorder.insert_events(vec![event_of(2, 1, vec![0; 3_000])]));
    let larger_than_the_queue = accepted(recorder.insert_events(vec![event_of(3, 1, vec![0; 10_000])]));
    // It waits for the queue budget, and was never accepted: dropped, it records nothing.
    drop(cancelled);
    gate.open();
    assert_eq!(first.await.unwrap(), [1]);
    assert_eq!(larger_than_the_queue.await.unwrap(), [2]);
    assert_eq!(recorder.select_events(id(2), EventRange::all()).await.unwrap(), []);
}

#[tokio::test]
async fn positions_take_room_too() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let room = NonZeroU32::new(300).unwrap();
    let datastore = SqliteOptions::new(&path).queue_bytes(room).hooks(hook).open().await.unwrap();
    let recorder = datastore.tracking_recorder().await.unwrap();
    let position = |id| Tracking::new("upstream", id).unwrap();

    let first = accepted(recorder.insert_tracking(position(1)));
    gate.reached().await;
    let second = accepted(recorder.insert_tracking(position(2)));
    drop(accepted(recorder.insert_tracking(position(3))));
    gate.open();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_call_dropped_after_it_was_accepted_is_recorded_whole() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let datastore = SqliteOptions::new(&path).hooks(hook).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();

    let dropped = accepted(recorder.insert_events(events(1, 1..=3)));
    gate.reached().await;
    drop(dropped);
    gate.open();
    recorder.insert_events(vec![event(2, 1)]).await.unwrap();
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=3));
}

#[tokio::test]
async fn closing_waits_for_accepted_writes() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let datastore = SqliteOptions::new(&path).hooks(hook).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let other = datastore.process_recorder().await.unwrap();
    let snapshots = datastore.aggregate_recorder("snapshots").await.unwrap();

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let waiting = accepted(recorder.insert_events(events(1, 2..=4)));
    // Dropped immediately: closing continues in the background.
    drop(accepted(recorder.close()));
    let closed = |error: es_core::PersistenceError| assert_eq!(error.kind(), ErrorKind::Interface, "{error}");
    closed(recorder.insert_events(vec![event(9, 1)]).await.unwrap_err());
    closed(recorder.insert_events(Vec::new()).await.unwrap_err());
    gate.open();
    assert_eq!(first.await.unwrap(), [1]);
    assert_eq!(waiting.await.unwrap(), [2, 3, 4]);

    recorder.close().await.unwrap();
    recorder.close().await.unwrap();
    closed(recorder.insert_events(vec![event(9, 1)]).await.unwrap_err());
    closed(recorder.select_events(id(1), EventRange::all()).await.unwrap_err());
    closed(recorder.max_notification_id().await.unwrap_err());
    closed(recorder.max_tracking_id("upstream").await.unwrap_err());
    closed(recorder.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap_err());
    // The others go on until the datastore is closed.
    other.insert_tracking(Tracking::new("upstream", 1).unwrap()).await.unwrap();
    snapshots.insert_events(vec![event(1, 1)]).await.unwrap();
    datastore.close().await.unwrap();
    closed(snapshots.insert_events(vec![event(1, 2)]).await.unwrap_err());
    closed(datastore.application_recorder().await.unwrap_err());

    let reopened = open(&path).await;
    assert_eq!(reopened.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=4));
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_accepted_writes() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let datastore = SqliteOptions::new(&path).hooks(hook).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    drop(datastore);

    let first = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let waiting = accepted(recorder.insert_events(events(1, 2..=4)));
    drop((first, waiting));
    drop(recorder);
    gate.open();
    gate.writer_ended().await;

    let reopened = open(&path).await;
    assert_eq!(reopened.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=4));
}

/// A database in memory has one connection: reads queue behind writes.
#[tokio::test]
async fn a_database_in_memory_reads_between_groups() {
    for name in [":memory:", "file::memory:", "file:shared?mode=memory&cache=shared"] {
        let datastore = SqliteOptions::new(name).open().await.unwrap();
        let recorder = datastore.process_recorder().await.unwrap();
        let inserts: Vec<_> =
            (1..=20).map(|version| recorder.insert_events(vec![event(1, version)])).collect();
        for (version, insert) in (1..).zip(inserts) {
            assert_eq!(insert.await.unwrap(), [version]);
            assert_eq!(recorder.max_notification_id().await.unwrap(), Some(version));
        }
        assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=20));
        datastore.close().await.unwrap();
    }
}

/// Purposes share the writer, and may share a group.
#[tokio::test]
async fn the_recorders_of_a_datastore_keep_tables_of_their_own() {
    let datastore = SqliteOptions::new(":memory:").open().await.unwrap();
    let events = datastore.application_recorder().await.unwrap();
    let snapshots = datastore.aggregate_recorder("snapshots").await.unwrap();
    assert_eq!(events.insert_events(vec![event(1, 1)]).await.unwrap(), [1]);
    assert_eq!(snapshots.insert_events(vec![event(1, 1)]).await.unwrap(), Vec::<i64>::new());
    assert!(snapshots.insert_events(vec![event(1, 2), event(1, 1)]).await.unwrap_err().is_conflict());
    assert_eq!(snapshots.select_events(id(1), EventRange::all()).await.unwrap(), [event(1, 1)]);
    assert_eq!(events.max_notification_id().await.unwrap(), Some(1));
}

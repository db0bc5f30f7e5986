//! Guarantees of the recorders, through the public API, on a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;

#[tokio::test]
async fn events_are_kept_in_order_and_conflicts_named() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let recorder = datastore.process_recorder("bank").await.unwrap();
    let id = Uuid::new_v4();
    assert_eq!(recorder.insert_events(vec![event(id, 1), event(id, 2)]).await.unwrap(), [1, 2]);
    let tracking = Tracking::new("upstream", 5).unwrap();
    let ids = recorder.insert_events_with_tracking(vec![event(id, 3)], tracking.clone()).await.unwrap();
    assert_eq!(ids, [3]);
    let refused = recorder.insert_events(vec![first(), event(id, 2)]).await.unwrap_err();
    let expected = Conflict::Version { originator_id: id, originator_version: 2 };
    assert_eq!(refused.conflict(), Some(&expected));
    let refused = recorder.insert_events_with_tracking(vec![first()], tracking).await.unwrap_err();
    let expected = Conflict::Tracking { application_name: "upstream".to_owned(), notification_id: 5 };
    assert_eq!(refused.conflict(), Some(&expected));
    // A conflict is detected before an id is allocated.
    assert_eq!(recorder.insert_events(vec![first()]).await.unwrap(), [4]);
    let events = recorder.select_events(id, EventRange::all()).await.unwrap();
    assert_eq!(events, [event(id, 1), event(id, 2), event(id, 3)]);
    let page = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    assert_eq!(page.iter().map(|notification| notification.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(4));
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(5));
    assert_eq!(recorder.max_tracking_id(Tracking::RESERVED_NAME).await.unwrap(), None);
    recorder.close().await.unwrap();
    let closed = recorder.insert_events(vec![first()]).await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Interface);
}

/// A group is queried by the lowest and the highest version of each aggregate: a recorded version between
/// them is no conflict by itself.
#[tokio::test]
async fn versions_between_those_of_a_batch_are_no_conflict() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let (id, other) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(recorder.insert_events(vec![event(id, 2)]).await.unwrap(), [1]);
    let around = vec![event(other, 7), event(id, 1), event(id, i64::MAX), event(other, i64::MIN)];
    assert_eq!(recorder.insert_events(around).await.unwrap(), [2, 3, 4, 5]);
    let refused =
        recorder.insert_events(vec![event(id, 3), event(other, 7), event(id, 4)]).await.unwrap_err();
    let expected = Conflict::Version { originator_id: other, originator_version: 7 };
    assert_eq!(refused.conflict(), Some(&expected));
    assert_eq!(recorder.insert_events(vec![event(id, 3), event(id, 4)]).await.unwrap(), [6, 7]);
}

/// A conflict with an event that is committed while a request waits for the lock is reported, for a single
/// event and for a group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_that_arises_while_waiting_is_reported() {
    let schema = Schema::create().await;
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    let events = schema.table("bank_events");
    let waiting =
        format!("SELECT EXISTS (SELECT FROM pg_locks WHERE relation = '{events}'::regclass AND NOT granted)");
    for (theirs, ours) in [(1, 1), (2, 2)] {
        let id = Uuid::new_v4();
        let mut rival = schema.connect().await;
        let insert = format!(
            "BEGIN; LOCK TABLE {events} IN EXCLUSIVE MODE; \
             INSERT INTO {events} VALUES ('{id}', {theirs}, 'bank:Other', 'theirs')"
        );
        run(&mut rival, &insert).await;
        let refused = tokio::spawn({
            let recorder = recorder.clone();
            async move { recorder.insert_events((1..=ours).map(|version| event(id, version)).collect()).await }
        });
        until(&mut schema.connect().await, &waiting).await;
        run(&mut rival, "COMMIT").await;
        let expected = Conflict::Version { originator_id: id, originator_version: theirs };
        assert_eq!(refused.await.unwrap().unwrap_err().conflict(), Some(&expected));
        recorder.insert_events(vec![first()]).await.unwrap();
    }
}

#[tokio::test]
async fn tables_can_be_named_and_are_created_for_each_recorder_as_it_says() {
    let schema = Schema::create().await;
    let datastore = schema.open().await;
    let own = RecorderTables::new().events("My \"ledger\"").tracking("My positions");
    let missing = own.clone().create(false);
    assert!(datastore.process_recorder_with("bank", &missing).await.is_err());
    let ledger = datastore.process_recorder_with("bank", &own).await.unwrap();
    let bank = datastore.process_recorder("bank").await.unwrap();
    // Each table has its own ids and positions.
    assert_eq!(ledger.insert_events(vec![first(), first()]).await.unwrap(), [1, 2]);
    assert_eq!(bank.insert_events(vec![first()]).await.unwrap(), [1]);
    ledger.insert_tracking(Tracking::new("upstream", 7).unwrap()).await.unwrap();
    assert_eq!(bank.max_tracking_id("upstream").await.unwrap(), None);
    let again = datastore.process_recorder_with("", &missing).await.unwrap();
    assert_eq!(again.insert_events(vec![first()]).await.unwrap(), [3]);
    assert_eq!(again.max_tracking_id("upstream").await.unwrap(), Some(7));
    let names = [String::new(), "n".repeat(64), "a\0b".to_owned()];
    for name in names {
        let tables = RecorderTables::new().events(name);
        let refused = datastore.aggregate_recorder_with("", "snapshots", &tables).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Programming);
    }
}

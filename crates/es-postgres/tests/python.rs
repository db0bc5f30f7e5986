//! Databases that the Python library wrote, versions 9.1 and 9.5: read, appended to, read again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use std::{fs, path::PathBuf};

use common::prelude::*;
use futures_util::TryStreamExt;
use serde_json::Value;

fn test_data(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/python").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A database with a dump in it.
async fn restore(name: &str) -> Database {
    let database = Database::create().await;
    // `\restrict` is for psql.
    let dump = test_data(&format!("{name}.sql"));
    let dump: String =
        dump.lines().filter(|line| !line.starts_with('\\')).map(|line| format!("{line}\n")).collect();
    run(&mut database.server.connect().await, &dump).await;
    database
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

async fn holds_what_python_wrote(name: &str) {
    let database = restore(name).await;
    let expected: Value = serde_json::from_str(&test_data(&format!("{name}.json"))).unwrap();
    let datastore = database.server.options().open().await.unwrap();
    let recorder = datastore.process_recorder("bank").await.unwrap();

    let notifications: Vec<_> =
        recorder.stream_notifications(NotificationSelection::new(usize::MAX)).try_collect().await.unwrap();
    let expected_notifications = expected["notifications"].as_array().unwrap();
    assert_eq!(notifications.len(), expected_notifications.len());
    for (found, expected) in notifications.iter().zip(expected_notifications) {
        assert_eq!(found.id, expected["id"].as_i64().unwrap());
        assert_eq!(found.event.originator_id.to_string(), expected["originator_id"].as_str().unwrap());
        assert_eq!(found.event.originator_version, expected["originator_version"].as_i64().unwrap());
        assert_eq!(found.event.topic, expected["topic"].as_str().unwrap());
        assert_eq!(found.event.state, unhex(&expected["state_hex"]));
    }

    let snapshots = datastore.aggregate_recorder("bank", "snapshots").await.unwrap();
    for expected in expected["snapshots"].as_array().unwrap() {
        let id: Uuid = expected["originator_id"].as_str().unwrap().parse().unwrap();
        let found = snapshots.select_events(id, EventRange::all().desc().limit(1)).await.unwrap();
        assert_eq!(found[0].originator_version, expected["originator_version"].as_i64().unwrap());
        if let Some(state) = expected.get("state_hex") {
            assert_eq!(found[0].state, unhex(state));
        }
    }

    // Append, and find both.
    let (last, aggregate) = (notifications.last().unwrap().id, &notifications[0].event.originator_id);
    let next = recorder.select_events(*aggregate, EventRange::all()).await.unwrap().len() as i64 + 1;
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
    assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(41));
    let taken = Tracking::new("upstream", 7).unwrap();
    assert!(recorder.insert_events_with_tracking(vec![first()], taken).await.unwrap_err().is_conflict());
    let tracking = Tracking::new("upstream", 8).unwrap();
    let ids = recorder.insert_events_with_tracking(vec![event(*aggregate, next)], tracking).await.unwrap();
    let sequence: i64 = scalar(
        &mut database.server.connect().await,
        "SELECT last_value FROM bank_events_notification_id_seq",
    )
    .await;
    assert_eq!(ids, [sequence]);
    assert!(ids[0] > last);
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(8));
    let events = recorder.select_events(*aggregate, EventRange::all()).await.unwrap();
    assert_eq!(events.last().unwrap(), &event(*aggregate, next));
    assert_eq!(&events[0], &notifications[0].event);
}

#[tokio::test]
async fn version_9_1_with_a_row_for_each_tracking_record() {
    holds_what_python_wrote("postgres-9.1-plain").await;
}

#[tokio::test]
async fn version_9_5_with_a_row_for_each_application() {
    holds_what_python_wrote("postgres-9.5-plain").await;
}

#[tokio::test]
async fn an_existing_layout_is_kept() {
    for (name, rows) in [("postgres-9.1-plain", 2), ("postgres-9.5-plain", 1)] {
        let database = restore(name).await;
        let mut connection = database.server.connect().await;
        let count = "SELECT count(*) FROM bank_tracking WHERE application_name = 'other'";
        let before: i64 = scalar(&mut connection, count).await;
        let recorder =
            database.server.options().open().await.unwrap().process_recorder("bank").await.unwrap();
        recorder.insert_tracking(Tracking::new("other", 42).unwrap()).await.unwrap();
        let after: i64 = scalar(&mut connection, count).await;
        assert_eq!(after - before, rows - 1, "{name}");
        let mark = "SELECT count(*) FROM bank_tracking WHERE application_name = '__migration__'";
        assert_eq!(scalar::<i64>(&mut connection, mark).await, i64::from(rows == 1), "{name}");
    }
}

#[tokio::test]
async fn created_tables_equal_those_of_python() {
    let database = Database::create().await;
    let recorder = database.server.options().open().await.unwrap().process_recorder("Bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let mut connection = database.server.connect().await;
    let columns = "SELECT string_agg(column_name || ' ' || data_type || ' ' || is_nullable, ', ' ORDER BY ordinal_position) \
                   FROM information_schema.columns WHERE table_name = ";
    let events: String = scalar(&mut connection, &format!("{columns} 'bank_events'")).await;
    assert_eq!(
        events,
        "originator_id uuid NO, originator_version bigint NO, topic text YES, state bytea YES, notification_id bigint NO"
    );
    let index = "SELECT pg_get_indexdef('bank_events_notification_id_idx'::regclass)";
    assert_eq!(
        scalar::<String>(&mut connection, index).await,
        "CREATE UNIQUE INDEX bank_events_notification_id_idx ON public.bank_events USING btree (notification_id)"
    );
    let mark = "SELECT application_name || notification_id FROM bank_tracking";
    assert_eq!(scalar::<String>(&mut connection, mark).await, "__migration__1");
}

/// Version 9.5 records the position before it locks the events table. An append that waited for the position
/// while it held the events table, and an append of Python's for the same upstream, waited for each other
/// until the server aborted one of them.
#[tokio::test]
async fn a_locked_position_is_not_waited_for_inside_the_statement() {
    let database = restore("postgres-9.5-plain").await;
    let (hooks, mut locked) = PositionLocked::new();
    let datastore = database.server.options().hooks(hooks).open().await.unwrap();
    let recorder = datastore.process_recorder("bank").await.unwrap();
    let mut python = database.server.connect().await;
    let update = "BEGIN; UPDATE bank_tracking SET notification_id = 8 WHERE application_name = 'upstream'";
    run(&mut python, update).await;
    let append = tokio::spawn({
        let recorder = recorder.clone();
        let tracking = Tracking::new("upstream", 8).unwrap();
        async move { recorder.insert_events_with_tracking(vec![first()], tracking).await }
    });
    locked.recv().await.unwrap();
    // Requests of others do not wait for the position.
    recorder.insert_events(vec![first()]).await.unwrap();
    run(&mut python, "LOCK TABLE bank_events IN EXCLUSIVE MODE; COMMIT").await;
    assert!(append.await.unwrap().unwrap_err().is_conflict(), "the position has been recorded by then");
}

/// Reports that a position was found locked.
struct PositionLocked(tokio::sync::mpsc::UnboundedSender<()>);

impl PositionLocked {
    fn new() -> (Self, tokio::sync::mpsc::UnboundedReceiver<()>) {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

impl FaultHooks for PositionLocked {
    fn reached(&self, point: FaultPoint) -> HookFuture<'_> {
        if point == FaultPoint::PositionLocked {
            let _ = self.0.send(());
        }
        Box::pin(async {})
    }
}

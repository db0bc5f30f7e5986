//! Databases of the Python library have the contents that it reports, and both libraries continue to use
//! them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{fs, path::PathBuf};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Conflict, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, SegmentChange, SegmentRecorder, SegmentRecorderExt, StoredEvent,
    Tracking, TrackingRecorder,
};
use es_popo::PopoApplicationRecorder;
use es_process::{HandlerConsumer, PartitionedProcessor};
use es_sqlite::{SqliteDatastore, SqliteOptions};
use rusqlite::Connection;
use serde_json::Value;
use support::{database, event, events};
use tempfile::TempDir;

const DATABASES: [&str; 6] = [
    "sqlite-9.1-plain",
    "sqlite-9.1-zlib",
    "sqlite-9.1-aes128-zlib",
    "sqlite-9.5-plain",
    "sqlite-9.5-aes192",
    "sqlite-9.5-aes256-zlib",
];

/// A copy of a database, and its contents as the Python library reports them.
struct Written {
    _directory: TempDir,
    path: String,
    says: Value,
}

impl Written {
    fn by_python(name: &str) -> Self {
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/python").join(name);
        let (directory, path) = database();
        fs::copy(source.with_file_name(format!("{name}.db")), &path).unwrap();
        let says = fs::read(source.with_file_name(format!("{name}.json"))).unwrap();
        Self { _directory: directory, path, says: serde_json::from_slice(&says).unwrap() }
    }

    async fn open(&self) -> SqliteDatastore {
        SqliteOptions::new(&self.path).open().await.unwrap()
    }

    fn notifications(&self) -> Vec<Notification> {
        let notification =
            |says: &Value| Notification { id: says["id"].as_i64().unwrap(), event: stored(says) };
        self.says["notifications"].as_array().unwrap().iter().map(notification).collect()
    }

    fn snapshots(&self) -> Vec<StoredEvent> {
        self.says["snapshots"].as_array().unwrap().iter().map(stored).collect()
    }
}

fn stored(says: &Value) -> StoredEvent {
    let text = |key: &str| says[key].as_str().unwrap();
    let hex = text("state_hex");
    let state: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    StoredEvent {
        originator_id: text("originator_id").parse().unwrap(),
        originator_version: says["originator_version"].as_i64().unwrap(),
        topic: text("topic").try_into().unwrap(),
        state: state.into(),
    }
}

#[tokio::test]
async fn events_and_snapshots_are_found() {
    for name in DATABASES {
        let written = Written::by_python(name);
        let datastore = written.open().await;
        let recorder = datastore.process_recorder().await.unwrap();
        let all = NotificationSelection::new(1_000);
        let expected = written.notifications();
        assert!(!expected.is_empty());
        assert_eq!(recorder.select_notifications(all).await.unwrap(), expected, "{name}");

        let mut originators: Vec<_> =
            expected.iter().map(|notification| notification.event.originator_id).collect();
        originators.sort();
        originators.dedup();
        for originator in originators {
            let of_it = |event: &StoredEvent| event.originator_id == originator;
            let mut events: Vec<_> = expected.iter().map(|it| it.event.clone()).filter(of_it).collect();
            events.sort_by_key(|event| event.originator_version);
            assert_eq!(
                recorder.select_events(originator, EventRange::all()).await.unwrap(),
                events,
                "{name}"
            );
        }

        let snapshots = datastore.aggregate_recorder("snapshots").await.unwrap();
        for snapshot in written.snapshots() {
            let range =
                EventRange::all().gt(snapshot.originator_version - 1).lte(snapshot.originator_version);
            let found = snapshots.select_events(snapshot.originator_id, range).await.unwrap();
            assert_eq!(found, [snapshot], "{name}");
        }
    }
}

#[tokio::test]
async fn appended_events_and_those_of_python_are_both_read() {
    for name in DATABASES {
        let written = Written::by_python(name);
        let expected = written.notifications();
        let last = expected.last().unwrap().id;
        let recorder = written.open().await.process_recorder().await.unwrap();
        let taken = recorder.insert_events(vec![expected[0].event.clone()]).await.unwrap_err();
        let (originator_id, originator_version) =
            (expected[0].event.originator_id, expected[0].event.originator_version);
        assert_eq!(taken.conflict(), Some(&Conflict::Version { originator_id, originator_version }));
        assert_eq!(recorder.insert_events(events(1, 1..=2)).await.unwrap(), [last + 1, last + 2]);
        drop(recorder);

        let recorder = written.open().await.process_recorder().await.unwrap();
        let mut all = recorder.select_notifications(NotificationSelection::new(1_000)).await.unwrap();
        let ours: Vec<_> = all.split_off(expected.len()).into_iter().map(|it| it.event).collect();
        assert_eq!(all, expected, "{name}");
        assert_eq!(ours, events(1, 1..=2), "{name}");
    }
}

#[tokio::test]
async fn both_layouts_of_tracking_are_used_as_they_are() {
    for name in DATABASES {
        let written = Written::by_python(name);
        let recorder = written.open().await.process_recorder().await.unwrap();
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7), "{name}");
        assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(41), "{name}");
        assert_eq!(recorder.max_tracking_id("unheard of").await.unwrap(), None, "{name}");
        assert_eq!(recorder.max_tracking_id("__migration__").await.unwrap(), None, "{name}");
        assert!(recorder.has_tracking_id("upstream", 5).await.unwrap(), "{name}");

        for refused in [7, 5, 2, 0, -1] {
            let position = Tracking::new("upstream", refused).unwrap();
            let error = recorder.insert_events_with_tracking(vec![event(1, 1)], position).await.unwrap_err();
            let conflict =
                Conflict::Tracking { application_name: "upstream".to_owned(), notification_id: refused };
            assert_eq!(error.conflict(), Some(&conflict), "{name}");
        }
        let position = Tracking::new("upstream", 8).unwrap();
        recorder.insert_events_with_tracking(vec![event(1, 1)], position).await.unwrap();
        recorder.insert_tracking(Tracking::new("new", 3).unwrap()).await.unwrap();
        assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(8), "{name}");

        let rows = tracking_rows(&written.path);
        let expected: &[(&str, i64)] = if name.contains("9.1") {
            &[("new", 3), ("other", 41), ("upstream", 1), ("upstream", 2), ("upstream", 7), ("upstream", 8)]
        } else {
            &[("__migration__", 1), ("new", 3), ("other", 41), ("upstream", 8)]
        };
        let rows: Vec<_> = rows.iter().map(|(name, id)| (name.as_str(), *id)).collect();
        assert_eq!(rows, expected, "{name}");
    }
}

/// A Python process of the new version migrates the table of the old one when it opens it.
#[tokio::test]
async fn tracking_continues_while_python_migrates_the_table() {
    let written = Written::by_python("sqlite-9.1-plain");
    let recorder = written.open().await.process_recorder().await.unwrap();
    recorder.insert_tracking(Tracking::new("upstream", 8).unwrap()).await.unwrap();
    Connection::open(&written.path)
        .unwrap()
        .execute_batch(
            "BEGIN IMMEDIATE;
             ALTER TABLE tracking RENAME TO old1_tracking;
             CREATE TABLE tracking (application_name TEXT, notification_id INTEGER,
               PRIMARY KEY (application_name)) WITHOUT ROWID;
             INSERT INTO tracking VALUES ('__migration__', 1), ('upstream', 8), ('other', 41);
             COMMIT;",
        )
        .unwrap();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(8));
    assert!(recorder.insert_tracking(Tracking::new("upstream", 8).unwrap()).await.unwrap_err().is_conflict());
    recorder.insert_tracking(Tracking::new("upstream", 9).unwrap()).await.unwrap();
    let rows = tracking_rows(&written.path);
    assert_eq!(rows, [("__migration__".to_owned(), 1), ("other".to_owned(), 41), ("upstream".to_owned(), 9)]);
}

/// The properties that the Python library checks in a database that it did not create.
#[tokio::test]
async fn a_new_database_is_as_python_makes_it() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    datastore.aggregate_recorder("snapshots").await.unwrap();
    recorder.insert_events(vec![event(0xab, 1)]).await.unwrap();

    let connection = Connection::open(&path).unwrap();
    let python = Connection::open(&Written::by_python("sqlite-9.5-plain").path).unwrap();
    let tables = |connection: &Connection| -> Vec<String> {
        let mut select =
            connection.prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").unwrap();
        let mut rows = select.query(()).unwrap();
        let mut tables = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            tables.push(row.get::<_, String>(0).unwrap().replace('"', ""));
        }
        tables
    };
    assert_eq!(tables(&connection), tables(&python));
    assert_eq!(tracking_rows(&path), [("__migration__".to_owned(), 1)]);
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let row: (i64, String, String, String) = connection
        .query_row(
            "SELECT rowid, originator_id, typeof(originator_version), typeof(state) FROM stored_events",
            (),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap();
    let id = "000000000000000000000000000000ab".to_owned();
    assert_eq!(row, (1, id, "integer".to_owned(), "blob".to_owned()));
}

/// A consumer of the Python library continues in segments, in both layouts of the table.
#[tokio::test]
async fn segments_continue_in_both_layouts_of_tracking() {
    const NAME: &str = "upstream";
    for name in ["sqlite-9.1-plain", "sqlite-9.5-plain"] {
        let written = Written::by_python(name);
        let recorder = written.open().await.process_recorder().await.unwrap();
        let before = recorder.max_notification_id().await.unwrap();
        let upstream = PopoApplicationRecorder::new();
        let append = async |versions: std::ops::RangeInclusive<i64>| {
            for version in versions {
                upstream
                    .insert_events((1..=5).map(|originator| event(originator, version)).collect())
                    .await
                    .unwrap();
            }
        };
        append(1..=4).await;
        // Each worker takes over from the one before, and segments are split and merged in between.
        for round in 0..3 {
            let end = 20 + 5 * round;
            let (leases, consumers) = (recorder.clone(), recorder.clone());
            let worker = PartitionedProcessor::new(NAME, upstream.clone(), leases, move |_| {
                let consumer = HandlerConsumer::new(consumers.clone(), effect);
                async move { Ok(consumer) }
            });
            let mut running = worker.segments(2.try_into().unwrap()).spawn().unwrap();
            recorder.wait_for_segments(NAME, end, support::TIMEOUT).await.unwrap();
            running.stop();
            running.join().await.unwrap();
            append(round + 5..=round + 5).await;
            let changes = [SegmentChange::Split { first_hash: 0 }, SegmentChange::Merge { first_hash: 0 }];
            if let Some(change) = changes.into_iter().nth(usize::try_from(round).unwrap()) {
                recorder.change_segments(NAME, change).await.unwrap();
            }
        }
        let effects = NotificationSelection::new(1_000).after(before.unwrap());
        let effects = recorder.select_notifications(effects).await.unwrap();
        let mut effects: Vec<_> = effects.iter().map(|effect| effect.event.originator_version).collect();
        effects.sort_unstable();
        // Python has processed the first seven.
        assert_eq!(effects, (8..=30).collect::<Vec<_>>(), "{name}");
        let positions = recorder.segments(NAME).await.unwrap();
        assert_eq!((positions.segments.len(), positions.position()), (2, 30), "{name}");
        assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(41), "{name}");
    }
}

/// Its version is the id of the notification.
async fn effect(notification: Notification) -> Result<Vec<StoredEvent>, PersistenceError> {
    let originator_id = es_core::uuid::Uuid::new_v4();
    Ok(vec![StoredEvent { originator_id, originator_version: notification.id, ..event(1, 1) }])
}

fn tracking_rows(path: &str) -> Vec<(String, i64)> {
    let connection = Connection::open(path).unwrap();
    let mut select = connection.prepare("SELECT * FROM tracking ORDER BY 1, 2").unwrap();
    let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

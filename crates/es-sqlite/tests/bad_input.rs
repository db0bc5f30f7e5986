//! Invalid databases, events and rows: a clear error of the right kind, nothing written, and the recorder
//! works afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{
    error::Error,
    fs,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ErrorKind, EventRange, NotificationSelection, PersistenceError,
    ProcessRecorder, Tracking, TrackingRecorder,
};
use es_sqlite::SqliteOptions;
use rusqlite::Connection;
use support::{application_recorder, database, event, event_of, events, id, open, open_process};

#[track_caller]
fn assert_error(error: &PersistenceError, kind: ErrorKind, words: &[&str]) {
    assert_eq!(error.kind(), kind, "{error:?}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in {error}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database() {
    let (_directory, path) = database();
    fs::write(&path, "a diary, not a database. ".repeat(100)).unwrap();
    let error = SqliteOptions::new(&path).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Database, &["events.db", "is not a database"]);
    assert!(error.source().is_some());
    assert!(fs::read_to_string(&path).unwrap().starts_with("a diary"));
}

#[tokio::test]
async fn invalid_paths_are_refused() {
    let (directory, path) = database();
    let error = SqliteOptions::new(directory.path()).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["cannot be opened"]);
    let error = SqliteOptions::new(directory.path().join("no/such/directory.db")).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["directory.db", "cannot be opened"]);
    let error = SqliteOptions::new("").open().await.unwrap_err();
    assert_error(&error, ErrorKind::Programming, &["a database needs a name"]);
    // Without tables to create, a missing file is a mistake.
    let error = SqliteOptions::new(&path).create_table(false).open().await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["events.db", "cannot be opened"]);
    assert!(!fs::exists(&path).unwrap());
}

#[tokio::test]
async fn a_database_that_cannot_be_written() {
    let (_directory, path) = database();
    open(&path).await.insert_events(vec![event(1, 1)]).await.unwrap();

    let recorder = open(&format!("file:{path}?mode=ro")).await;
    let error = recorder.insert_events(vec![event(1, 2)]).await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["cannot be written"]);
    assert!(!error.is_transient());
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), [event(1, 1)]);
}

#[tokio::test]
async fn a_database_that_is_locked_while_it_is_opened() {
    let (_directory, path) = database();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let options = SqliteOptions::new(&path).lock_timeout(Duration::from_millis(50));
    let error = options.clone().open().await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["events.db", "lock timeout"]);
    assert!(error.is_transient());
    other.execute_batch("ROLLBACK").unwrap();
    options.open().await.unwrap();
}

#[tokio::test]
async fn a_full_database() {
    let (_directory, path) = database();
    let options = SqliteOptions::new(&path).max_database_bytes(NonZeroU64::new(100 << 10).unwrap());
    let recorder = application_recorder(options).await;
    let error = recorder.insert_events(vec![event_of(1, 1, vec![0; 200 << 10])]).await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["is full"]);
    let batch = (1..=4).map(|version| event_of(1, version, vec![0; 50 << 10])).collect();
    let error = recorder.insert_events(batch).await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["is full"]);
    assert_eq!(recorder.insert_events(vec![event(1, 1)]).await.unwrap(), [1]);
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), [event(1, 1)]);
}

#[tokio::test]
async fn a_missing_table() {
    let (_directory, path) = database();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    let datastore = SqliteOptions::new(&path).create_table(false).open().await.unwrap();
    let recorder = datastore.process_recorder().await.unwrap();
    let snapshots = datastore.aggregate_recorder("snapshots").await.unwrap();
    let position = Tracking::new("upstream", 1).unwrap();
    for (error, table) in [
        (recorder.insert_events(vec![event(1, 1)]).await.unwrap_err(), "stored_events"),
        (recorder.insert_events(events(1, 1..=3)).await.unwrap_err(), "stored_events"),
        (recorder.select_events(id(1), EventRange::all()).await.unwrap_err(), "stored_events"),
        (recorder.max_notification_id().await.unwrap_err(), "stored_events"),
        (recorder.insert_tracking(position.clone()).await.unwrap_err(), "tracking"),
        (recorder.max_tracking_id("upstream").await.unwrap_err(), "tracking"),
        (snapshots.insert_events(vec![event(1, 1)]).await.unwrap_err(), "stored_snapshots"),
    ] {
        assert_error(&error, ErrorKind::Programming, &[&format!("table {table:?} does not exist")]);
    }
    let creator = open_process(&path).await;
    assert_eq!(creator.max_tracking_id("upstream").await.unwrap(), None);
    assert_eq!(recorder.insert_events_with_tracking(vec![event(1, 1)], position).await.unwrap(), [1]);
}

#[tokio::test]
async fn a_state_over_the_limit() {
    let (_directory, path) = database();
    for name in [":memory:", &path] {
        let options = SqliteOptions::new(name).max_event_bytes(NonZeroU32::new(10_000).unwrap());
        let datastore = options.open().await.unwrap();
        let recorder = datastore.application_recorder().await.unwrap();
        for size in [9_990, 20_000] {
            let batch = vec![event(1, 1), event_of(1, 2, vec![0; size])];
            let error = recorder.insert_events(batch).await.unwrap_err();
            assert_error(
                &error,
                ErrorKind::Data,
                &["bank:Account.Credited", "version 2 of originator", "larger than"],
            );
        }
        assert_eq!(recorder.insert_events(vec![event_of(1, 1, vec![0; 5_000])]).await.unwrap(), [1]);
    }
}

#[tokio::test]
async fn rows_that_are_no_events_are_named() {
    let hex = id(1).simple().to_string();
    for (row, words) in [
        (format!("'{hex}', 7, NULL, x'00'"), vec!["version 7 of originator", "topic is NULL"]),
        (format!("'{hex}', 7, x'ff', x'00'"), vec!["version 7 of originator", "topic is bytes"]),
        (format!("'{hex}', 7, CAST(x'ff' AS TEXT), x'00'"), vec!["version 7 of originator", "topic is"]),
        (format!("'{hex}', 7, 'a', NULL"), vec!["version 7 of originator", "state is NULL"]),
        (format!("'{hex}', 7, 'a', 5"), vec!["version 7 of originator", "state is the integer 5"]),
        (format!("'{hex}', 1.5, 'a', x'00'"), vec![&id(1).to_string(), "version is the real number 1.5"]),
        (format!("'{hex}', 1e19, 'a', x'00'"), vec!["version is the real number 1"]),
        (format!("'{hex}', 'x', 'a', x'00'"), vec!["version is \"x\""]),
        (format!("'{hex}', NULL, 'a', x'00'"), vec!["version is NULL"]),
    ] {
        let (_directory, path) = database();
        let recorder = open(&path).await;
        recorder.insert_events(vec![event(2, 1)]).await.unwrap();
        let insert = format!("INSERT INTO stored_events VALUES ({row})");
        Connection::open(&path).unwrap().execute_batch(&insert).unwrap();
        let selected = recorder.select_events(id(1), EventRange::all()).await.unwrap_err();
        assert_error(&selected, ErrorKind::Data, &words);
        let page = NotificationSelection::new(10);
        let notified = recorder.select_notifications(page.clone()).await.unwrap_err();
        assert_error(&notified, ErrorKind::Data, &words);
        assert_error(&notified, ErrorKind::Data, &["stored_events", "notification 2"]);
        assert_eq!(recorder.select_notifications(page.stop(1)).await.unwrap().len(), 1);
        assert_eq!(recorder.insert_events(vec![event(2, 2)]).await.unwrap(), [3]);
    }
}

/// The Python library records an empty topic, which stopped every reader.
#[tokio::test]
async fn an_empty_topic_is_read_and_copied() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    recorder.insert_events(vec![event(2, 1)]).await.unwrap();
    let insert = format!("INSERT INTO stored_events VALUES ('{}', 7, '', x'00')", id(1).simple());
    Connection::open(&path).unwrap().execute_batch(&insert).unwrap();
    recorder.insert_events(vec![event(2, 2)]).await.unwrap();
    let page = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    let topics: Vec<_> = page.iter().map(|notification| notification.event.topic.as_str()).collect();
    assert_eq!(topics, ["bank:Account.Credited", "", "bank:Account.Credited"]);
    let copies = open(":memory:").await;
    let all: Vec<_> = page.into_iter().map(|notification| notification.event).collect();
    copies.insert_events(all.clone()).await.unwrap();
    assert_eq!(copies.select_events(id(1), EventRange::all()).await.unwrap(), all[1..2]);
}

#[tokio::test]
async fn an_originator_that_is_no_uuid_is_named() {
    for (id, words) in [("'Alice'", "originator_id is \"Alice\""), ("NULL", "originator_id is NULL")] {
        let (_directory, path) = database();
        let recorder = open(&path).await;
        let insert = format!("INSERT INTO stored_events VALUES ({id}, 1, 'a', x'00')");
        Connection::open(&path).unwrap().execute_batch(&insert).unwrap();
        let error = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap_err();
        assert_error(&error, ErrorKind::Data, &["notification 1 in table \"stored_events\"", words]);
    }
}

/// SQLite would continue with random ids, and readers would miss the events.
#[tokio::test]
async fn no_notification_ids_are_left() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    let insert = format!(
        "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) \
         VALUES ({}, '{}', 1, 'a', x'00')",
        i64::MAX - 2,
        id(1).simple()
    );
    Connection::open(&path).unwrap().execute_batch(&insert).unwrap();
    let error = recorder.insert_events(events(2, 1..=3)).await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["stored_events", "notification ids left"]);
    assert_eq!(recorder.insert_events(events(2, 1..=2)).await.unwrap(), [i64::MAX - 1, i64::MAX]);
    let error = recorder.insert_events(vec![event(2, 3)]).await.unwrap_err();
    assert_error(&error, ErrorKind::Operational, &["notification ids left"]);
    let after = NotificationSelection::new(10).after(i64::MAX);
    assert_eq!(recorder.select_notifications(after).await.unwrap(), []);
}

#[tokio::test]
async fn purposes_that_name_no_table() {
    let datastore = SqliteOptions::new(":memory:").open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    for purpose in ["", "a\"; DROP TABLE stored_events; --", "a b", "a\0b", "'", "a\nb"] {
        let error = datastore.aggregate_recorder(purpose).await.unwrap_err();
        assert_error(&error, ErrorKind::Programming, &[&format!("{purpose:?}")]);
    }
    for purpose in ["snapshots", "Schnappschüsse", "select", "a-b.c_1"] {
        let odd = datastore.aggregate_recorder(purpose).await.unwrap();
        odd.insert_events(vec![event(1, 1)]).await.unwrap();
        assert_eq!(odd.select_events(id(1), EventRange::all()).await.unwrap(), [event(1, 1)]);
    }
    assert_eq!(recorder.max_notification_id().await.unwrap(), None);
}

/// The application recorder was made on such a table, and each of its calls failed: "SQLite failed".
#[tokio::test]
async fn a_table_of_aggregates_is_no_table_of_an_application() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    datastore.aggregate_recorder("events").await.unwrap();
    let error = datastore.application_recorder().await.unwrap_err();
    assert_error(&error, ErrorKind::Programming, &["stored_events", "aggregate recorder"]);
    let error = datastore.process_recorder().await.unwrap_err();
    assert_error(&error, ErrorKind::Programming, &["stored_events", "aggregate recorder"]);

    let unchecked = SqliteOptions::new(&path).create_table(false).open().await.unwrap();
    let error = unchecked.application_recorder().await.unwrap().max_notification_id().await.unwrap_err();
    assert_error(&error, ErrorKind::Programming, &[]);
}

#[tokio::test]
async fn a_name_that_no_file_has() {
    let error = SqliteOptions::new("events\0.db").open().await.unwrap_err();
    assert_error(&error, ErrorKind::Programming, &["events"]);
}

/// A timeout that SQLite cannot count made the writer thread panic, and opening fail as an internal error.
#[tokio::test]
async fn a_lock_timeout_of_any_length() {
    for timeout in [Duration::MAX, Duration::from_secs(30 * 86_400), Duration::ZERO] {
        let (_directory, path) = database();
        SqliteOptions::new(&path).lock_timeout(timeout).open().await.unwrap();
    }
}

/// SQLite refused the readers, which did not request to create the file that the writer had created.
#[tokio::test]
async fn a_uri_that_asks_for_creation() {
    let (_directory, path) = database();
    for create_table in [true, false] {
        let options = SqliteOptions::new(format!("file:{path}?mode=rwc")).create_table(create_table);
        let recorder = application_recorder(options).await;
        let version = i64::from(create_table);
        assert_eq!(recorder.insert_events(vec![event(1, version)]).await.unwrap().len(), 1);
    }
    let (_directory, path) = database();
    let missing = SqliteOptions::new(format!("file:{path}")).create_table(false).open().await.unwrap_err();
    assert_error(&missing, ErrorKind::Operational, &["events.db"]);
}

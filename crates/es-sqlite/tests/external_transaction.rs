//! Appends inside the caller's own `sqlx` transaction.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]
#![cfg(feature = "sqlx")]

mod support;

use es_core::{
    AggregateRecorder, ApplicationRecorder, Conflict, ErrorKind, EventRange, NotificationSelection, Tracking,
    TrackingRecorder,
};
use es_sqlite::{SqliteOptions, SqliteProcessRecorder};
use sqlx::{Connection, SqliteConnection};
use support::{database, event, event_of, events, id, open_process};
use tempfile::TempDir;

/// A recorder on a file, and another connection to the file.
async fn both() -> (TempDir, SqliteProcessRecorder, SqliteConnection) {
    let (directory, path) = database();
    let recorder = open_process(&path).await;
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    sqlx::query("CREATE TABLE balances (amount INTEGER)").execute(&mut connection).await.unwrap();
    (directory, recorder, connection)
}

fn position(id: i64) -> Tracking {
    Tracking::new("upstream", id).unwrap()
}

#[tokio::test]
async fn events_commit_with_the_other_writes_of_the_transaction() {
    let (_directory, recorder, mut connection) = both().await;
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();

    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO balances VALUES (5)").execute(&mut *transaction).await.unwrap();
    assert_eq!(recorder.insert_events_in(&mut transaction, &events(1, 2..=3)).await.unwrap(), [2, 3]);
    let ids = recorder.insert_events_with_tracking_in(&mut transaction, &[event(2, 1)], &position(4)).await;
    assert_eq!(ids.unwrap(), [4]);
    recorder.insert_tracking_in(&mut transaction, &position(5)).await.unwrap();
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(1), "it has not committed");
    transaction.commit().await.unwrap();

    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=3));
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(5));
    assert_eq!(recorder.insert_events(vec![event(2, 2)]).await.unwrap(), [5]);
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_records_nothing() {
    let (_directory, recorder, mut connection) = both().await;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    recorder.insert_events_with_tracking_in(&mut transaction, &events(1, 1..=3), &position(1)).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(recorder.select_notifications(NotificationSelection::new(10)).await.unwrap(), []);
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), None);
}

#[tokio::test]
async fn a_conflict_leaves_the_transaction_as_it_was() {
    let (_directory, recorder, mut connection) = both().await;
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();

    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    recorder.insert_events_with_tracking_in(&mut transaction, &[event(2, 1)], &position(3)).await.unwrap();
    let batch = [event(3, 1), event(1, 1)];
    let error =
        recorder.insert_events_with_tracking_in(&mut transaction, &batch, &position(4)).await.unwrap_err();
    let taken = Conflict::Version { originator_id: id(1), originator_version: 1 };
    assert_eq!((error.kind(), error.conflict()), (ErrorKind::Integrity, Some(&taken)));
    let error = recorder.insert_events_with_tracking_in(&mut transaction, &[event(4, 1)], &position(3)).await;
    let passed = Conflict::Tracking { application_name: "upstream".to_owned(), notification_id: 3 };
    assert_eq!(error.unwrap_err().conflict(), Some(&passed));
    transaction.commit().await.unwrap();

    let all = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    let recorded: Vec<_> = all.into_iter().map(|it| (it.id, it.event)).collect();
    assert_eq!(recorded, [(1, event(1, 1)), (2, event(2, 1))]);
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(3));
}

#[tokio::test]
async fn other_errors_keep_their_kind() {
    let (_directory, path) = database();
    let mut connection = SqliteConnection::connect(&format!("{path}?mode=rwc")).await.unwrap();
    sqlx::query("CREATE TABLE other (a)").execute(&mut connection).await.unwrap();
    let datastore = SqliteOptions::new(&path).create_table(false).open().await.unwrap();
    let snapshots = datastore.aggregate_recorder("snapshots").await.unwrap();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let error = snapshots.insert_events_in(&mut transaction, &[event(1, 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("stored_snapshots"), "{error}");
}

/// A full disk made SQLite roll the whole transaction back. The savepoint could then not be ended, and
/// the program got the error "no such savepoint"; a second try made a savepoint outside of any transaction,
/// and its end committed it.
#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_recorded_after_it() {
    let (_directory, recorder, mut connection) = both().await;
    sqlx::query("PRAGMA max_page_count = 30").execute(&mut connection).await.unwrap();

    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO balances VALUES (5)").execute(&mut *transaction).await.unwrap();
    let large = [event(1, 1), event_of(1, 2, vec![7; 400 << 10])];
    let full = recorder.insert_events_in(&mut transaction, &large).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::Operational, "{full:?}");
    assert!(full.to_string().contains("is full"), "{full}");
    for _ in 0..2 {
        let refused = recorder.insert_events_in(&mut transaction, &[event(2, 1)]).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Interface, "{refused:?}");
        let refused = recorder.insert_tracking_in(&mut transaction, &position(1)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Interface, "{refused:?}");
    }
    transaction.commit().await.unwrap_err();

    assert_eq!(recorder.max_notification_id().await.unwrap(), None);
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), None);
}

/// The error was transient and named another connection's lock, but a retry cannot succeed.
#[tokio::test]
async fn a_deferred_transaction_that_has_read_gets_an_error_that_says_how_to_begin() {
    let (_directory, recorder, mut connection) = both().await;
    let mut transaction = connection.begin().await.unwrap();
    let select = sqlx::query_scalar("SELECT count(*) FROM stored_events");
    assert_eq!(select.fetch_one(&mut *transaction).await.map(|count: i64| count).unwrap(), 0);
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();

    let error = recorder.insert_events_in(&mut transaction, &[event(2, 1)]).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Operational, false), "{error:?}");
    assert!(error.to_string().contains("BEGIN IMMEDIATE"), "{error}");
}

/// The event would have been lost with the file, after the program had committed it.
#[cfg(unix)]
#[tokio::test]
async fn a_replaced_file_is_an_error() {
    let (directory, recorder, mut connection) = both().await;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    recorder.insert_events_in(&mut transaction, &events(1, 1..=2)).await.unwrap();
    let path = directory.path().join("events.db");
    std::fs::rename(&path, directory.path().join("other.db")).unwrap();
    let moved = recorder.insert_events_in(&mut transaction, &events(1, 3..=4)).await.unwrap_err();
    assert_eq!(moved.kind(), ErrorKind::Operational, "{moved:?}");
    assert!(moved.to_string().contains("moved, deleted or replaced"), "{moved}");
    assert!(moved.to_string().contains(path.to_str().unwrap()), "{moved}");
}

/// A batch with a version twice was reported as a conflict with stored data.
#[tokio::test]
async fn a_version_twice_in_a_batch_is_no_conflict() {
    let (_directory, recorder, mut connection) = both().await;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let twice = [event(1, 1), event(2, 1), event(1, 1)];
    let error = recorder.insert_events_in(&mut transaction, &twice).await.unwrap_err();
    assert_eq!((error.kind(), error.is_conflict()), (ErrorKind::Programming, false), "{error:?}");
    // The transaction is as it was.
    assert_eq!(recorder.insert_events_in(&mut transaction, &twice[..2]).await.unwrap(), [1, 2]);
    transaction.commit().await.unwrap();
}

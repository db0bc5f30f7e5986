//! Files that are deleted or replaced while they are open, and a write-ahead log that was cut off or damaged
//! at rest.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{fs, path::Path, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, ErrorKind, EventRange,
    NotificationSelection,
};
use es_sqlite::{Fault, FaultHooks, FaultPoint, SqliteOptions};
use support::{TIMEOUT, application_recorder, database, events, id, open};
use tokio::time::timeout;

fn replace(path: &str) {
    let other = format!("{path}.other");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    fs::rename(other, path).unwrap();
}

fn delete(path: &str) {
    fs::remove_file(path).unwrap();
}

fn delete_log(path: &str) {
    fs::remove_file(format!("{path}-wal")).unwrap();
}

/// Events were acknowledged in a deleted file, which is lost when the process ends.
#[tokio::test]
async fn nothing_is_acknowledged_in_a_file_that_is_no_longer_there() {
    for harm in [replace, delete, delete_log] {
        let (_directory, path) = database();
        let recorder = open(&path).await;
        recorder.insert_events(events(1, 1..=2)).await.unwrap();
        harm(&path);
        for _ in 0..2 {
            let error = recorder.insert_events(events(2, 1..=2)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Operational, "{error:?}");
            assert!(error.to_string().contains("moved, deleted or replaced"), "{error}");
        }
        // A version that is taken in the old file may be free in the one that has its name.
        let error = recorder.insert_events(events(1, 1..=2)).await.unwrap_err();
        assert!(error.to_string().contains("moved, deleted or replaced"), "{error}");
        assert_eq!(recorder.select_events(id(2), EventRange::all()).await.unwrap(), []);
        recorder.datastore().close().await.unwrap();
    }
}

/// Subscriptions waited forever for events that other processes record in the new file.
#[tokio::test]
async fn a_subscription_to_a_deleted_file_fails() {
    for harm in [replace, delete, delete_log] {
        let (_directory, path) = database();
        let recorder = open(&path).await;
        recorder.insert_events(events(1, 1..=2)).await.unwrap();
        let mut subscription = recorder.subscribe(0, []).poll_interval(Duration::from_millis(10));
        assert_eq!(subscription.next_page().await.unwrap().unwrap().notifications.len(), 2);
        harm(&path);
        let page = timeout(TIMEOUT, subscription.next_page()).await;
        let error = page.expect("the subscription ends with an error").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Operational, "{error:?}");
        assert!(error.to_string().contains("moved, deleted or replaced"), "{error}");
        assert!(error.to_string().contains(&path), "{error}");
        recorder.datastore().close().await.unwrap();
    }
}

/// Replaces the file while a commit is about to be reported.
struct ReplaceAfterCommit(String);

impl FaultHooks for ReplaceAfterCommit {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        if step == FaultPoint::Report && Path::new(&self.0).exists() {
            delete(&self.0);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_file_that_goes_during_a_commit_leaves_the_outcome_unknown() {
    let (_directory, path) = database();
    let options = SqliteOptions::new(&path).hooks(ReplaceAfterCommit(path.clone()));
    let recorder = application_recorder(options).await;
    let error = recorder.insert_events(events(1, 1..=2)).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error:?}");
}

/// A commit is whole or not there, wherever the log ends or is damaged.
#[tokio::test]
async fn a_log_that_was_cut_off_or_damaged_leaves_a_beginning_of_whole_commits() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    for originator in 1..=4 {
        recorder.insert_events(events(originator, 1..=3)).await.unwrap();
    }
    let (file, log) = (fs::read(&path).unwrap(), fs::read(format!("{path}-wal")).unwrap());
    recorder.datastore().close().await.unwrap();

    const HEADER: usize = 32;
    const FRAME: usize = 24 + 4_096;
    let frames = (log.len() - HEADER) / FRAME;
    let starts = (0..=frames).map(|frame| HEADER + frame * FRAME);
    let places = starts.flat_map(|start| [0, 1, 8, 23, 24, 2_000].map(|offset| start + offset));
    let mut seen = [false; 5];
    for at in [0, 1, 16, 24, 31].into_iter().chain(places).filter(|at| *at < log.len()) {
        let mut damaged = log.clone();
        damaged[at] ^= 0x55;
        for log in [&log[..at], &damaged] {
            let (_directory, copy) = database();
            fs::write(&copy, &file).unwrap();
            fs::write(format!("{copy}-wal"), log).unwrap();
            let recorder = open(&copy).await;
            let read = recorder.select_notifications(NotificationSelection::new(100)).await.unwrap();
            let read: Vec<_> = read.into_iter().map(|notification| notification.event).collect();
            let commits = read.len() / 3;
            let expected: Vec<_> = (1..=commits as u128).flat_map(|it| events(it, 1..=3)).collect();
            assert_eq!(read, expected, "byte {at}, {} bytes", log.len());
            seen[commits] = true;
            let ids = recorder.insert_events(events(9, 1..=1)).await.unwrap();
            assert_eq!(ids, [commits as i64 * 3 + 1]);
            recorder.datastore().close().await.unwrap();
        }
    }
    assert_eq!(seen[..4], [true; 4]);
}

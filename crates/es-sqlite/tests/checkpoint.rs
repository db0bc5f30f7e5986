//! Checkpoints: the write-ahead log does not grow without bound.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::fs;

use es_core::{AggregateRecorder, ApplicationRecorder};
use es_sqlite::{SqliteOptions, Synchronous};
use rusqlite::Connection;
use support::{application_recorder, database, event, event_of};

const MIB: usize = 1 << 20;

fn log_mib(path: &str) -> usize {
    usize::try_from(fs::metadata(format!("{path}-wal")).unwrap().len()).unwrap() / MIB
}

/// It kept the size that one large request, or reads that overlapped, had given it.
#[tokio::test]
async fn a_large_log_is_emptied() {
    let (_directory, path) = database();
    let options = SqliteOptions::new(&path).synchronous(Synchronous::Off);
    let recorder = application_recorder(options).await;
    let large = (1..=70).map(|version| event_of(1, version, vec![7; MIB])).collect();
    recorder.insert_events(large).await.unwrap();
    // The checkpoint is after the reply, before the next request.
    recorder.insert_events(vec![event(2, 1)]).await.unwrap();
    assert!(log_mib(&path) < 1, "{} MiB", log_mib(&path));
}

#[tokio::test]
async fn an_endless_read_blocks_no_write() {
    let (_directory, path) = database();
    let options = SqliteOptions::new(&path).synchronous(Synchronous::Off);
    let recorder = application_recorder(options).await;
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM stored_events").unwrap();
    for version in 1..=70 {
        recorder.insert_events(vec![event_of(1, version, vec![7; MIB])]).await.unwrap();
    }
    assert!(log_mib(&path) > 64, "the read needs it");
    reader.execute_batch("ROLLBACK").unwrap();
    for version in 71..=140 {
        recorder.insert_events(vec![event_of(1, version, vec![7; MIB])]).await.unwrap();
    }
    assert!(log_mib(&path) <= 128 + 2, "{} MiB", log_mib(&path));
    assert_eq!(recorder.max_notification_id().await.unwrap(), Some(140));
}

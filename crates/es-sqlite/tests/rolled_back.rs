//! A log, or a tracking record, that is cut back under a running processor, as by the restore of a backup.
//!
//! The bug: only the first position of a run was compared with the log. After an upstream was cut back to 7
//! under a processor at 10, the new notifications 8 to 10 were never handled; after a downstream was, the
//! effects of 8 to 10 were missing for good. Neither was an error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod support;

use std::{convert::Infallible, time::Duration};

use es_core::{
    AggregateRecorder, ErrorKind, Notification, PersistenceError, StoredEvent, TrackingRecorder,
    TrackingRecorderExt,
};
use es_process::{Processor, ProcessorError};
use es_sqlite::{SqliteApplicationRecorder, SqliteOptions, SqliteProcessRecorder, rusqlite::Connection};
use support::{TIMEOUT, database, events};

async fn handle(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(vec![notification.event])
}

async fn open(path: &str) -> (SqliteApplicationRecorder, SqliteProcessRecorder) {
    let datastore = SqliteOptions::new(path).open().await.unwrap();
    (datastore.application_recorder().await.unwrap(), datastore.process_recorder().await.unwrap())
}

fn execute(path: &str, statements: &str) {
    Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

fn persistence_error(run: Result<(), ProcessorError>) -> PersistenceError {
    match run.unwrap_err() {
        ProcessorError::Persistence { source, .. } => source,
        other => panic!("{other:?}"),
    }
}

/// Processes ten notifications, injects the fault, and returns the error with which the processor then stops.
async fn error_after(
    upstream: &SqliteApplicationRecorder,
    downstream: &SqliteProcessRecorder,
    harm: impl AsyncFnOnce(),
) -> PersistenceError {
    upstream.insert_events(events(1, 1..=10)).await.unwrap();
    let mut processor = Processor::new("bank", upstream.clone(), downstream.clone(), handle)
        .poll_interval(Duration::from_millis(5));
    let interrupt = async {
        downstream.wait("bank", 10, TIMEOUT).await.unwrap();
        harm().await;
    };
    let running = async { tokio::join!(processor.run(), interrupt).0 };
    persistence_error(tokio::time::timeout(TIMEOUT, running).await.unwrap())
}

#[tokio::test]
async fn an_upstream_that_is_cut_back_under_a_processor_is_noticed() {
    let [(_one, up), (_two, down)] = [database(), database()];
    let ((upstream, _), (_, downstream)) = (open(&up).await, open(&down).await);
    let cut = async || execute(&up, "DELETE FROM stored_events WHERE rowid > 7");
    let error = error_after(&upstream, &downstream, cut).await;
    assert_eq!(error.kind(), ErrorKind::RolledBack);
    for part in ["\"bank\"", "10", "7"] {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    assert_eq!(downstream.max_tracking_id("bank").await.unwrap(), Some(10));
}

#[tokio::test]
async fn a_downstream_that_is_cut_back_under_a_processor_is_noticed() {
    let [(_one, up), (_two, down)] = [database(), database()];
    let ((upstream, _), (followed, downstream)) = (open(&up).await, open(&down).await);
    let cut = async || {
        let cut = "UPDATE tracking SET notification_id = 7 WHERE application_name = 'bank';
                   DELETE FROM stored_events WHERE rowid > 7";
        execute(&down, cut);
        upstream.insert_events(events(1, 11..=12)).await.unwrap();
    };
    let error = error_after(&upstream, &downstream, cut).await;
    assert_eq!((error.kind(), error.is_conflict()), (ErrorKind::RolledBack, false), "{error}");
    for part in ["\"bank\"", "10", "7"] {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
    assert_eq!(downstream.max_tracking_id("bank").await.unwrap(), Some(7));
    let recorded = followed.select_events(support::id(1), es_core::EventRange::all()).await.unwrap();
    assert_eq!(recorded, events(1, 1..=7));
}

//! Inline reads return the same as reads on reader threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::{
    future::poll_fn,
    num::NonZeroUsize,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use es_core::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, ApplicationRecorderExt, DEFAULT_PAGE_BYTES,
    ErrorKind, EventRange, NotificationSelection, TrackingRecorder,
};
use es_sqlite::SqliteOptions;
use futures_util::TryStreamExt;
use rusqlite::Connection;
use support::{database, event, event_of, events, id, open};
use tokio::time::timeout;

#[tokio::test]
async fn repeated_reads_of_an_aggregate_show_new_events() {
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    // From none to more than an inline read takes.
    for version in 1..=150 {
        recorder.insert_events(vec![event(1, version)]).await.unwrap();
        for _ in 0..2 {
            let all = recorder.select_events(id(1), EventRange::all()).await.unwrap();
            assert_eq!(all, events(1, 1..=version));
        }
        let newest = recorder.select_events(id(1), EventRange::all().desc().limit(2)).await.unwrap();
        let expected: Vec<_> = events(1, (1..=version).rev().take(2));
        assert_eq!(newest, expected);
        let range = EventRange::all().gt(3).lte(version).limit(100);
        assert_eq!(recorder.select_events(id(1), range).await.unwrap(), events(1, 4..=version.min(103)));
    }
}

/// Only aggregates that had been read a moment ago were read on the caller's thread. Others took 81 to 103 µs
/// in a program that did other work between its calls, where Python takes 55.
#[tokio::test]
async fn aggregates_that_were_never_read_are_read_on_the_caller_s_thread() {
    let (_directory, path) = database();
    create_endless(&path);
    let options = SqliteOptions::new(&path).readers(NonZeroUsize::MIN);
    let datastore = options.open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    let endless = datastore.aggregate_recorder("endless").await.unwrap();
    recorder.insert_events((1..=20_000).map(|originator| event(originator, 1)).collect()).await.unwrap();
    for last in (100..=20_000).step_by(100) {
        // These measure short reads, which may be slow on a busy machine.
        for originator in last - 99..last {
            let found = recorder.select_events(id(originator), EventRange::all()).await.unwrap();
            assert_eq!(found, [event(originator, 1)]);
        }
        let mut busy = pin!(endless.select_events(id(1), EventRange::all()));
        assert!(poll_once(busy.as_mut()).await.is_pending(), "the only reader thread is free");
        let mut read = pin!(recorder.select_events(id(last), EventRange::all()));
        if let Poll::Ready(found) = poll_once(read.as_mut()).await {
            assert_eq!(found.unwrap(), [event(last, 1)]);
            return;
        }
    }
    panic!("no aggregate was read on the caller's thread");
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Callers and the writer thread take turns with its only connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tasks_that_share_a_database_in_memory_read_their_own_writes() {
    let recorder = open(":memory:").await;
    let write_and_read = |originator| {
        let recorder = recorder.clone();
        async move {
            for version in 1..=300 {
                recorder.insert_events(vec![event(originator, version)]).await.unwrap();
                let found = recorder.select_events(id(originator), EventRange::all().desc().limit(2)).await;
                assert_eq!(found.unwrap()[0], event(originator, version));
            }
            let found = recorder.select_events(id(originator), EventRange::all()).await.unwrap();
            assert_eq!(found, events(originator, 1..=300));
        }
    };
    for task in (1..=8).map(|originator| tokio::spawn(write_and_read(originator))).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn large_events_are_read_whole() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), []);
    let large: Vec<_> = (1..=5).map(|version| event_of(1, version, vec![7; 60 << 10])).collect();
    recorder.insert_events(large.clone()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), large);
    }
}

#[tokio::test]
async fn more_aggregates_than_the_cache_holds() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    recorder.insert_events((1..=9_000).map(|originator| event(originator, 1)).collect()).await.unwrap();
    for _ in 0..2 {
        for originator in 1..=9_000 {
            let found = recorder.select_events(id(originator), EventRange::all()).await.unwrap();
            assert_eq!(found, [event(originator, 1)]);
        }
    }
}

#[tokio::test]
async fn an_invalid_row_is_an_error_of_an_inline_read_too() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();
    recorder.select_events(id(1), EventRange::all()).await.unwrap();
    Connection::open(&path).unwrap().execute("UPDATE stored_events SET topic = NULL", ()).unwrap();
    let error = recorder.select_events(id(1), EventRange::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
}

#[tokio::test]
async fn a_closed_recorder_reads_nothing() {
    let (directory, path) = database();
    let recorder = open(&path).await;
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();
    recorder.select_events(id(1), EventRange::all()).await.unwrap();
    recorder.datastore().close().await.unwrap();
    let error = recorder.select_events(id(1), EventRange::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interface);
    // The last connection has put everything into the file, and nothing is held open.
    let files: Vec<_> = directory.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files, ["events.db"]);
}

/// Creates a table that ends nowhere.
fn create_endless(path: &str) {
    Connection::open(path)
        .unwrap()
        .execute_batch(
            "CREATE TABLE tracking (application_name TEXT, notification_id INTEGER);
             CREATE VIEW stored_endless AS WITH RECURSIVE versions (version) AS
                 (SELECT 1 UNION ALL SELECT version + 1 FROM versions)
             SELECT 'none' || version originator_id, version originator_version, 'a' topic, x'00' state
                 FROM versions",
        )
        .unwrap();
}

/// A reader thread whose caller had cancelled read on to the end: a few cancelled reads occupied all threads.
#[tokio::test]
async fn a_cancelled_read_releases_its_thread() {
    let (_directory, path) = database();
    create_endless(&path);
    let options = SqliteOptions::new(&path).readers(NonZeroUsize::MIN);
    let datastore = options.open().await.unwrap();
    let endless = datastore.aggregate_recorder("endless").await.unwrap();
    let positions = datastore.tracking_recorder().await.unwrap();
    // Long enough for the read to begin; had it not, the test would only prove less.
    let patience = Duration::from_millis(200);
    assert!(timeout(patience, endless.select_events(id(1), EventRange::all())).await.is_err());
    let other = timeout(Duration::from_secs(30), positions.max_tracking_id("upstream")).await;
    assert_eq!(other.expect("the only reader thread is free").unwrap(), None);
}

/// Inline reads never yielded: a task that only reads blocked all others.
#[tokio::test]
async fn a_task_that_only_reads_yields() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    recorder.insert_events(vec![event(1, 1)]).await.unwrap();
    recorder.select_events(id(1), EventRange::all()).await.unwrap();
    // On the only thread of this runtime.
    let other = tokio::spawn(async {});
    // More than a few: what goes to a reader thread may be answered before it is waited for.
    for _ in 0..50_000 {
        recorder.select_events(id(1), EventRange::all()).await.unwrap();
        if other.is_finished() {
            return;
        }
    }
    panic!("the other task never ran");
}

/// Pages were bounded in rows alone, and 1,000 events of 1 MiB took 1.05 GB.
#[tokio::test]
async fn pages_of_large_events_are_bounded() {
    let (_directory, path) = database();
    let recorder = open(&path).await;
    let size = 1 << 20;
    let large: Vec<_> = (1..=40).map(|version| event_of(1, version, vec![7; size])).collect();
    for batch in large.chunks(8) {
        recorder.insert_events(batch.to_vec()).await.unwrap();
    }
    recorder.insert_events(vec![event(1, 41)]).await.unwrap();
    let most = DEFAULT_PAGE_BYTES.get() / size;
    for topics in [vec![], vec![large[0].topic.clone()]] {
        let mut subscription = recorder.subscribe(0, topics);
        let mut seen = Vec::new();
        while seen.len() < 41 {
            let page = subscription.next_page().await.unwrap().expect("the recorder is open");
            assert!((1..=most).contains(&page.notifications.len()), "{}", page.notifications.len());
            seen.extend(page.notifications.iter().map(|read| read.id));
        }
        assert_eq!(seen, (1..=41).collect::<Vec<_>>());
    }

    let bounded = NotificationSelection::new(100).max_bytes(3 * size).stop(41);
    let page = recorder.select_notifications(bounded.clone()).await.unwrap();
    assert_eq!(page.len(), 3);
    assert!(bounded.is_filled_by(&page));
    assert_eq!(recorder.select_notifications(bounded.max_bytes(0)).await.unwrap().len(), 1);
    let range = EventRange::all().desc().max_bytes(2 * size);
    assert_eq!(recorder.select_events(id(1), range).await.unwrap().len(), 3);
    assert_eq!(recorder.select_events(id(1), range.max_bytes(0)).await.unwrap(), [event(1, 41)]);
    let all = NotificationSelection::new(usize::MAX);
    assert_eq!(recorder.stream_notifications(all).try_collect::<Vec<_>>().await.unwrap().len(), 41);
    let range = EventRange::all().gt(1).desc();
    assert_eq!(recorder.stream_events(id(1), range).try_collect::<Vec<_>>().await.unwrap().len(), 40);
}

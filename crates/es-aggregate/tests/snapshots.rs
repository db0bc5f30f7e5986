//! Snapshots: read before the events, written after the command, and never in its way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use std::sync::atomic::Ordering;

use es_aggregate::{Loaded, Repository, SnapshotPolicy};
use es_core::{
    AggregateRecorder, Bytes, DomainEvent, EventRange, Metadata, Recorder, Snapshot, StoredEvent, Topic,
};
use es_sqlite::SqliteOptions;
use es_transcode::JsonTranscoder;
use futures_util::FutureExt;
use support::{A, Account, B, InEuros, TestRecorder, accounts, credit, eventually, store};

type Accounts = Repository<Account, TestRecorder, JsonTranscoder>;

/// A repository with its recorders for events and for snapshots.
fn with_snapshots(every: u32) -> (Accounts, TestRecorder, TestRecorder) {
    let (events, snapshots) = (TestRecorder::new(), TestRecorder::new());
    let accounts = accounts(events.clone());
    (accounts.snapshots(store(snapshots.clone()), SnapshotPolicy::every(every)), events, snapshots)
}

async fn execute(accounts: &Accounts, count: usize) {
    for _ in 0..count {
        accounts.execute(A, Metadata::new(), |account| account.credit(1)).await.unwrap();
    }
}

/// Lets the tasks of the runtime run that wait for nothing.
async fn run_tasks() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn versions<R: AggregateRecorder>(snapshots: &R) -> Vec<i64> {
    let stored = snapshots.select_events(A, EventRange::all()).await.unwrap();
    stored.iter().map(|snapshot| snapshot.originator_version).collect()
}

fn loaded(version: i64) -> Loaded<Account> {
    Loaded { id: A, version, state: Account { balance: version, events: version } }
}

#[tokio::test]
async fn snapshots_are_taken_by_the_policy_and_used() {
    let (accounts, events, snapshots) = with_snapshots(3);
    execute(&accounts, 7).await;
    run_tasks().await;
    assert_eq!(versions(&snapshots.inner).await, [3, 6]);
    events.reads.lock().unwrap().clear();
    assert_eq!(accounts.load(A).await.unwrap(), loaded(7));
    let starts: Vec<_> = events.reads.lock().unwrap().iter().map(|range| range.gt).collect();
    assert_eq!(starts, [Some(5)], "only the events from the snapshot on are read");
    let stored = store(snapshots.inner).get::<Snapshot<Account>>(A, EventRange::all()).await.unwrap();
    assert_eq!(stored[1].payload.state, loaded(6).state);
}

#[tokio::test]
async fn a_command_does_not_wait_for_its_snapshot() {
    let events = TestRecorder::new();
    let snapshots = TestRecorder::blocked();
    let accounts = accounts(events).snapshots(store(snapshots.clone()), SnapshotPolicy::every(1));
    execute(&accounts, 100).await;
    run_tasks().await;
    assert_eq!(snapshots.attempts.load(Ordering::SeqCst), 16, "so many are written at a time, and no more");
    snapshots.writes.add_permits(100);
    run_tasks().await;
    assert_eq!(versions(&snapshots.inner).await, (1..=16).collect::<Vec<_>>());
    execute(&accounts, 1).await;
    run_tasks().await;
    assert_eq!(versions(&snapshots.inner).await.last(), Some(&101));
}

#[test]
fn without_a_runtime_a_snapshot_is_written_before_the_command_returns() {
    let (accounts, _, snapshots) = with_snapshots(2);
    execute(&accounts, 2).now_or_never().unwrap();
    assert_eq!(versions(&snapshots.inner).now_or_never().unwrap(), [2]);
}

#[tokio::test]
async fn a_failure_of_the_snapshots_never_fails_a_command_or_a_load() {
    let (accounts, events, snapshots) = with_snapshots(2);
    execute(&accounts, 2).await;
    run_tasks().await;
    snapshots.close().await.unwrap();
    execute(&accounts, 3).await;
    run_tasks().await;
    assert_eq!(accounts.load(A).await.unwrap(), loaded(5));
    assert_eq!(events.attempts.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn an_unusable_snapshot_is_ignored_and_replaced() {
    let topic = Topic::from_static("eventsourcing.domain:Snapshot");
    let state = |state: &str| {
        format!(r#"{{"timestamp":{{"_type_":"datetime_iso","_data_":"2026-11-29T12:00:00+00:00"}},{state}}}"#)
    };
    let account = r#""topic":"bank:Account","state":{"balance":900,"events":900,"class_version":3}"#;
    for (topic, state) in [
        (topic.clone(), "not JSON".to_owned()),
        (topic.clone(), state(&account.replace("Account", "Cart"))),
        (topic.clone(), state(&account.replace("balance", "name"))),
        (topic.clone(), state(&account.replace(":3", ":1"))), // an older class version without upcast
        (topic.clone(), state(&account.replace(r#","class_version":3"#, ""))),
        (topic.clone(), state(&account.replace(":3", ":4"))), // one of a later program
        (Topic::from_static("bank:Account.Credited"), state(account)),
    ] {
        let (accounts, events, snapshots) = with_snapshots(4);
        credit(&events.inner, A, 3).await;
        let text = state.clone();
        let stored =
            StoredEvent { originator_id: A, originator_version: 2, topic, state: Bytes::from(state) };
        snapshots.inner.insert_events(vec![stored]).await.unwrap();
        assert_eq!(accounts.load(A).await.unwrap(), loaded(3), "{text}");
        execute(&accounts, 1).await;
        run_tasks().await;
        assert_eq!(versions(&snapshots.inner).await, [2, 4], "{text}");
        assert_eq!(accounts.load(A).await.unwrap(), loaded(4), "{text}");
    }
}

#[tokio::test]
async fn a_snapshot_of_an_older_class_version_is_upcast() {
    let (accounts, events, snapshots) = with_snapshots(50);
    credit(&events.inner, A, 3).await;
    let old = DomainEvent::new(A, 2, Snapshot { state: InEuros { euros: 7, events: 2 } });
    store(snapshots.inner).put(&[old]).await.unwrap();
    assert_eq!(accounts.load(A).await.unwrap().state, Account { balance: 701, events: 3 });
}

/// After the restore of a backup, events may be older than snapshots. Commands after such a snapshot would
/// leave a gap, and decide on events that do not exist.
#[tokio::test]
async fn a_snapshot_ahead_of_the_events_is_ignored() {
    let (accounts, events, snapshots) = with_snapshots(50);
    let snapshot =
        |id, version| DomainEvent::new(id, version, Snapshot { state: Account { balance: 9, events: 9 } });
    store(snapshots.inner).put(&[snapshot(A, 4), snapshot(B, 1)]).await.unwrap();
    credit(&events.inner, A, 3).await;
    assert_eq!(accounts.load(A).await.unwrap(), loaded(3));
    assert!(!accounts.load(B).await.unwrap().exists());
    execute(&accounts, 1).await;
    assert_eq!(events.inner.select_events(A, EventRange::all()).await.unwrap()[3].originator_version, 4);
}

#[tokio::test]
async fn snapshots_on_sqlite_are_in_the_table_for_their_purpose() {
    let directory = tempfile::tempdir().unwrap();
    let datastore = SqliteOptions::new(directory.path().join("bank.db")).open().await.unwrap();
    let recorder = datastore.aggregate_recorder("snapshots").await.unwrap();
    let accounts = accounts(datastore.application_recorder().await.unwrap())
        .snapshots(store(recorder.clone()), SnapshotPolicy::every(50));
    for _ in 0..120 {
        accounts.execute(A, Metadata::new(), |account| account.credit(1)).await.unwrap();
    }
    eventually(async || versions(&recorder).await == [50, 100]).await;
    assert_eq!(accounts.load(A).await.unwrap(), loaded(120));
}

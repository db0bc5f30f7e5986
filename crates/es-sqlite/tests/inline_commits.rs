//! Inline commits: only short ones, and no call waits that did not wait before.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test unwraps the values that it expects"
)]

mod support;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::Poll,
    thread::{self, ThreadId},
    time::Duration,
};

use es_core::{AggregateRecorder, EventRange, Recorder};
use es_sqlite::{Fault, FaultHooks, FaultPoint, SqliteApplicationRecorder, SqliteOptions, Synchronous};
use futures_util::future::join_all;
use rusqlite::Connection;
use support::{application_recorder, database, event, event_of, events, id};
use tokio::time::timeout;

/// Records the threads that commit, and delays commits on request.
#[derive(Clone, Default)]
struct Commits(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    threads: Vec<ThreadId>,
    takes: Duration,
}

impl FaultHooks for Commits {
    fn before(&self, step: FaultPoint) -> Result<(), Fault> {
        if step == FaultPoint::Commit {
            let takes = {
                let mut state = self.0.lock().unwrap();
                state.threads.push(thread::current().id());
                state.takes
            };
            thread::sleep(takes);
        }
        Ok(())
    }
}

impl Commits {
    /// Returns the threads of the commits since the last call.
    fn made(&self) -> Vec<ThreadId> {
        std::mem::take(&mut self.0.lock().unwrap().threads)
    }

    fn take(&self, time: Duration) {
        self.0.lock().unwrap().takes = time;
    }
}

/// Opens a recorder whose recent commits were so short that they are inline, and the next one may be; it may
/// take long on a busy machine. Commits are not flushed, because a disk may be slow.
async fn quick(path: &str, commits: &Commits) -> SqliteApplicationRecorder {
    let options = SqliteOptions::new(path).synchronous(Synchronous::Off).hooks(commits.clone());
    // A wait for a lock that this program itself holds would never end.
    let options = options.lock_timeout(Duration::from_secs(86_400));
    let recorder = application_recorder(options).await;
    warm_up(&recorder, commits).await;
    recorder
}

async fn warm_up(recorder: &SqliteApplicationRecorder, commits: &Commits) {
    for version in 1..=100_000 {
        recorder.insert_events(vec![event(u128::MAX, version)]).await.unwrap_or_default();
        if commits.made().contains(&thread::current().id()) {
            return;
        }
    }
    panic!("no commit was made on the caller's thread");
}

/// Polls a call once: it is accepted, and may be done already.
async fn begin<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    poll_fn(|context| match Pin::new(&mut *call).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Commits on the caller's thread needed a write-ahead log. In memory there is none, and each insert took the
/// way to the writer thread and back: 74 µs where Python's driver takes 19.
#[tokio::test]
async fn a_database_in_memory_is_written_on_the_caller_s_thread() {
    let commits = Commits::default();
    let recorder = quick(":memory:", &commits).await;
    for version in 1..=100 {
        recorder.insert_events(vec![event(1, version)]).await.unwrap();
    }
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=100));
}

#[tokio::test]
async fn calls_that_are_made_together_share_a_commit() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    for version in 1..=1_000 {
        let calls = (1..=50).map(|originator| recorder.insert_events(vec![event(originator, version)]));
        let ids: Vec<_> = join_all(calls).await.into_iter().map(|ids| ids.unwrap()[0]).collect();
        assert!(ids.is_sorted());
        let made = commits.made();
        if made.iter().all(|thread| *thread == thread::current().id()) {
            assert_eq!(made.len(), 1);
            return;
        }
        // The commit before was a slow one.
        warm_up(&recorder, &commits).await;
    }
    panic!("no calls were committed on the caller's thread");
}

/// An accepted request must not depend on a dropped future.
#[tokio::test]
async fn a_call_dropped_before_it_commits_is_recorded_whole() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    begin(&mut Box::pin(recorder.insert_events(events(1, 1..=3)))).await;
    let recorded = async {
        loop {
            let found = recorder.select_events(id(1), EventRange::all()).await.unwrap();
            if !found.is_empty() {
                return found;
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(60), recorded).await.unwrap(), events(1, 1..=3));
    assert!(!commits.made().contains(&thread::current().id()));
}

/// A call that is kept and not polled delays neither others nor closing.
#[tokio::test]
async fn a_call_that_is_not_polled_blocks_no_other() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    let mut idle = Box::pin(recorder.insert_events(vec![event(1, 1)]));
    let done = begin(&mut idle).await;
    recorder.insert_events(vec![event(1, 2)]).await.unwrap();
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=2));
    let mut last = Box::pin(recorder.insert_events(vec![event(1, 3)]));
    let last_done = begin(&mut last).await;
    recorder.close().await.unwrap();
    let first = match done {
        Some(outcome) => outcome,
        None => idle.await,
    };
    let last = match last_done {
        Some(outcome) => outcome,
        None => last.await,
    };
    assert_eq!(last.unwrap()[0], first.unwrap()[0] + 2);
}

/// It would have blocked the only thread of this runtime for the whole lock timeout.
#[tokio::test]
async fn a_lock_of_another_process_delays_the_call_and_not_its_thread() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Polled before the other one, which runs only if this one does not block the thread.
    let release = async {
        tokio::task::yield_now().await;
        other.execute_batch("ROLLBACK").unwrap();
    };
    let (recorded, ()) = tokio::join!(biased; recorder.insert_events(vec![event(1, 1)]), release);
    recorded.unwrap();
    assert!(!commits.made().contains(&thread::current().id()));
}

#[tokio::test]
async fn a_disk_that_becomes_slow_is_left_to_the_writer_thread() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    commits.take(Duration::from_millis(8));
    // One is tolerated; the third one is recognised, however quick those before were.
    for version in 1..=3 {
        recorder.insert_events(vec![event(1, version)]).await.unwrap();
    }
    commits.made();
    for version in 4..=20 {
        recorder.insert_events(vec![event(1, version)]).await.unwrap();
    }
    let made = commits.made();
    assert_eq!(made.len(), 17);
    assert!(!made.contains(&thread::current().id()));
    commits.take(Duration::ZERO);
    warm_up(&recorder, &commits).await;
}

/// A task that writes alone does not yield before each commit, and does not occupy its thread either.
#[tokio::test]
async fn a_solo_writer_yields_periodically() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    commits.take(Duration::from_micros(100));
    let writing = tokio::spawn(async move {
        for version in 1.. {
            recorder.insert_events(vec![event(1, version)]).await.unwrap();
        }
    });
    let skips_yields = async {
        loop {
            // On the only thread of this runtime: all commits since were made without a yield.
            let without_yield = commits.made().len();
            assert!(without_yield <= 6, "{without_yield} commits of a tenth of a millisecond in half of one");
            if without_yield > 1 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), skips_yields).await.expect("the task yielded before each commit");
    writing.abort();
}

#[tokio::test]
async fn large_requests_are_left_to_the_writer_thread() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    recorder.insert_events(events(1, 1..=65)).await.unwrap();
    recorder.insert_events(vec![event_of(2, 1, vec![7; 64 << 10])]).await.unwrap();
    let made = commits.made();
    assert_eq!(made.len(), 2);
    assert!(!made.contains(&thread::current().id()));
}

#[tokio::test]
async fn inline_commits_can_be_switched_off() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let options = SqliteOptions::new(&path).synchronous(Synchronous::Off).inline_commits(false);
    let datastore = options.hooks(commits.clone()).open().await.unwrap();
    let recorder = datastore.application_recorder().await.unwrap();
    for version in 1..=200 {
        recorder.insert_events(vec![event(1, version)]).await.unwrap();
    }
    assert!(!commits.made().contains(&thread::current().id()));
}

/// Those that share the caller's commit, too.
#[tokio::test]
async fn each_request_has_its_own_outcome() {
    let (_directory, path) = database();
    let commits = Commits::default();
    let recorder = quick(&path, &commits).await;
    let calls =
        [events(1, 1..=2), events(1, 2..=3), events(2, 1..=2)].map(|events| recorder.insert_events(events));
    let outcomes = join_all(calls).await;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert!(outcomes[1].as_ref().unwrap_err().is_conflict());
    assert_eq!(recorder.select_events(id(1), EventRange::all()).await.unwrap(), events(1, 1..=2));
}

//! Subscriptions and waits for a position are woken by commits of any process, and by nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, ErrorKind, EventRange, Notification,
    NotificationSelection, PersistenceError, Recorder, Signal, StoredEvent, Subscription, Topic, Tracking,
    TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use es_sqlite::{FaultPoint, SqliteApplicationRecorder, SqliteOptions};
use support::{
    TIMEOUT, accepted, application_recorder, database, event, event_about, gate, open_process,
    process_recorder,
};

/// A listener that is not woken waits until the test has failed.
const NEVER: Duration = Duration::from_secs(3_600);

const SHORT: Duration = Duration::from_millis(1);

const OPENED: &str = "bank:Account.Opened";

fn subscribe<R: ApplicationRecorder + Clone>(recorder: &R, topics: &[&'static str]) -> Subscription<R> {
    let topics: Vec<_> = topics.iter().map(|topic| Topic::from_static(topic)).collect();
    recorder.subscribe(0, topics).poll_interval(NEVER)
}

async fn soon<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, call).await.expect("it is woken")
}

async fn next_ids<R: ApplicationRecorder>(subscription: &mut Subscription<R>) -> Vec<i64> {
    let page = soon(subscription.next_page()).await.unwrap().expect("the recorder is open");
    page.notifications.iter().map(|notification| notification.id).collect()
}

#[tokio::test]
async fn another_datastore_wakes_a_subscription() {
    let (_directory, path) = database();
    for name in [path.as_str(), "file:another_datastore_wakes?mode=memory&cache=shared"] {
        let (own, other) = (open_process(name).await, open_process(name).await);
        let mut all = subscribe(&own, &[]);
        let mut opened = subscribe(&own, &[OPENED]);
        for originator in 1..=5 {
            let mut listener = own.commit_signal().listen([OPENED]);
            let insert = other.insert_events(vec![event_about(OPENED, originator, 1)]);
            let (seen, seen_opened, ids) = tokio::join!(next_ids(&mut all), next_ids(&mut opened), insert);
            let ids = ids.unwrap();
            assert_eq!((&seen, &seen_opened), (&ids, &ids));
            assert!(soon(listener.notified()).await);
        }
    }
}

/// Without listeners there was no poll while the other committed: the first listener reads it,
/// and is woken by what comes after.
#[tokio::test]
async fn commits_without_listeners_are_read_later() {
    let (_directory, path) = database();
    let (own, other) = (open_process(&path).await, open_process(&path).await);
    for originator in 1..=5 {
        other.insert_events(vec![event(originator, 1)]).await.unwrap();
        let mut subscription = subscribe(&own, &[]);
        assert_eq!(next_ids(&mut subscription).await.len() as u128, 2 * originator - 1);
        let insert = other.insert_events(vec![event(originator, 2)]);
        let (seen, ids) = tokio::join!(next_ids(&mut subscription), insert);
        assert_eq!(seen, ids.unwrap());
    }
}

#[tokio::test]
async fn a_position_that_another_datastore_records_ends_the_waiting() {
    let (_directory, path) = database();
    let (own, other) = (open_process(&path).await, open_process(&path).await);
    for id in 1..=5 {
        // A wait polls by itself; a listener does not.
        let mut listener = own.tracking_signal().listen(["upstream"]);
        let position = Tracking::new("upstream", id).unwrap();
        let (waited, recorded) =
            tokio::join!(own.wait("upstream", id, TIMEOUT), other.insert_tracking(position));
        recorded.unwrap();
        waited.unwrap();
        assert!(soon(listener.notified()).await);
    }
}

#[cfg(feature = "sqlx")]
#[tokio::test]
async fn a_transaction_of_the_programs_own_wakes_a_subscription() {
    use sqlx::{Connection, SqliteConnection};

    let (_directory, path) = database();
    let recorder = open_process(&path).await;
    let mut connection = SqliteConnection::connect(&path).await.unwrap();
    let mut subscription = subscribe(&recorder, &[]);
    let mut listener = recorder.commit_signal().listen([OPENED]);
    let record = async {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
        recorder.insert_events_in(&mut transaction, &support::events(1, 1..=2)).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let (seen, ()) = tokio::join!(next_ids(&mut subscription), record);
    assert_eq!(seen, [1, 2]);
    assert!(soon(listener.notified()).await);
}

/// The writer thread polls between groups, not only when it is idle.
#[tokio::test]
async fn a_busy_writer_looks_too() {
    let (_directory, path) = database();
    let other = open_process(&path).await;
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let options = SqliteOptions::new(&path).poll_interval(SHORT).group_rows(NonZeroUsize::MIN).hooks(hook);
    let own = application_recorder(options).await;

    let mut listener = own.commit_signal().listen([OPENED]);
    let first = accepted(own.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    let second = accepted(own.insert_events(vec![event(1, 2)]));
    other.insert_events(vec![event_about(OPENED, 2, 1)]).await.unwrap();
    tokio::time::sleep(2 * SHORT).await; // Until the next poll is due.
    gate.pass();
    first.await.unwrap();
    gate.reached().await;
    assert!(soon(listener.notified()).await, "the writer is held, and has looked before");
    gate.open();
    second.await.unwrap();
}

#[tokio::test]
async fn closing_ends_subscriptions_in_order() {
    let (_directory, path) = database();
    let (hook, mut gate) = gate(FaultPoint::Begin);
    let recorder = process_recorder(SqliteOptions::new(&path).hooks(hook)).await;
    let mut all = subscribe(&recorder, &[]);
    let mut opened = subscribe(&recorder, &[OPENED]);
    let insert = accepted(recorder.insert_events(vec![event(1, 1)]));
    gate.reached().await;
    // They wait when it is closed, while the writer still works.
    let waiting = recorder.wait("upstream", 1, NEVER);
    let ends = async { tokio::join!(soon(all.next_page()), soon(opened.next_page()), soon(waiting)) };
    let mut closing = None;
    let close = async {
        tokio::task::yield_now().await;
        closing = Some(accepted(recorder.close()));
    };
    let ((end, end_of_opened, waited), ()) = tokio::join!(ends, close);
    assert_eq!((end.unwrap(), end_of_opened.unwrap()), (None, None));
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Interface);
    gate.open();
    assert_eq!(insert.await.unwrap(), [1]);
    closing.unwrap().await.unwrap();
    assert_eq!(soon(all.next_page()).await.unwrap(), None);
}

/// A listener keeps nothing open.
#[tokio::test]
async fn dropping_the_last_handle_ends_listening() {
    let (_directory, path) = database();
    let recorder = open_process(&path).await;
    let mut commits = recorder.commit_signal().listen([OPENED]);
    let mut positions = recorder.tracking_signal().listen(["upstream"]);
    drop(recorder);
    while soon(commits.notified()).await {}
    while soon(positions.notified()).await {}
}

/// Counts how often it is read.
#[derive(Clone, Debug)]
struct Counting {
    recorder: SqliteApplicationRecorder,
    reads: Arc<AtomicUsize>,
}

impl Counting {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    async fn counted<T>(&self, read: impl Future<Output = T>) -> T {
        let result = read.await;
        self.reads.fetch_add(1, Ordering::SeqCst);
        result
    }
}

impl Recorder for Counting {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.recorder.close().await
    }
}

impl AggregateRecorder for Counting {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.recorder.insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.counted(self.recorder.select_events(originator_id, range)).await
    }
}

impl ApplicationRecorder for Counting {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.counted(self.recorder.select_notifications(selection)).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.counted(self.recorder.max_notification_id()).await
    }

    fn commit_signal(&self) -> &Signal {
        self.recorder.commit_signal()
    }
}

#[tokio::test]
async fn subscribers_of_other_topics_read_nothing_however_much_is_committed() {
    const SUBSCRIBERS: usize = 1_000;
    let (_directory, path) = database();
    let datastore = SqliteOptions::new(&path).poll_interval(SHORT).open().await.unwrap();
    let recorder = Counting {
        recorder: datastore.application_recorder().await.unwrap(),
        reads: Arc::new(AtomicUsize::new(0)),
    };
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut subscription = subscribe(&recorder, &[OPENED]);
        subscribers.push(tokio::spawn(async move { next_ids(&mut subscription).await }));
    }
    while recorder.reads() < SUBSCRIBERS {
        tokio::task::yield_now().await;
    }

    let began = Instant::now();
    let mut commits = 0;
    while commits < 20 || began.elapsed() < 20 * SHORT {
        commits += 1;
        recorder.insert_events(vec![event(1, commits)]).await.unwrap();
    }
    tokio::task::yield_now().await;
    assert_eq!(recorder.reads(), SUBSCRIBERS, "after {commits} commits");

    let opened = recorder.insert_events(vec![event_about(OPENED, 2, 1)]).await.unwrap();
    for subscriber in subscribers {
        assert_eq!(subscriber.await.unwrap(), opened);
    }
}

//! Tests of the reads of a subscription: its pages, its position, failed reads, and polling without
//! wake-ups.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, EventRange, Notification,
    NotificationPage, NotificationSelection, PersistenceError, Recorder, Signal, StoredEvent, Topic,
    uuid::Uuid,
};
use es_popo::PopoApplicationRecorder;
use futures_util::{FutureExt, StreamExt};
use support::{now, stored};

const OPENED: Topic = Topic::from_static("bank:Account.Opened");
const CLOSED: Topic = Topic::from_static("bank:Account.Closed");

/// Fails with the configured errors, counts the reads of pages and of the end of the log, and wakes no
/// listener.
#[derive(Debug, Default)]
struct Moody {
    recorder: PopoApplicationRecorder,
    failures: Mutex<VecDeque<PersistenceError>>,
    pages_read: AtomicUsize,
    asked_for_end: AtomicUsize,
    commits: Signal,
}

impl Moody {
    /// A recorder with one event of each of these topics.
    fn with(topics: impl IntoIterator<Item = Topic>) -> Arc<Self> {
        let moody = Self::default();
        let events = (1..).zip(topics).map(|(version, topic)| event(version, topic));
        now(moody.recorder.insert_events(events.collect())).unwrap();
        Arc::new(moody)
    }

    fn fail_with(&self, failures: impl IntoIterator<Item = PersistenceError>) {
        self.failures.lock().unwrap().extend(failures);
    }
}

impl Recorder for Moody {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.commits.close();
        self.recorder.close().await
    }
}

impl AggregateRecorder for Moody {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.recorder.insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.recorder.select_events(originator_id, range).await
    }
}

impl ApplicationRecorder for Moody {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.pages_read.fetch_add(1, Ordering::Relaxed);
        let failure = self.failures.lock().unwrap().pop_front();
        match failure {
            Some(failure) => Err(failure),
            None => self.recorder.select_notifications(selection).await,
        }
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.asked_for_end.fetch_add(1, Ordering::Relaxed);
        self.recorder.max_notification_id().await
    }

    fn commit_signal(&self) -> &Signal {
        &self.commits
    }
}

fn event(originator_version: i64, topic: Topic) -> StoredEvent {
    StoredEvent { originator_version, ..stored(topic, b"{}") }
}

fn pages_of(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).unwrap()
}

fn lost() -> PersistenceError {
    PersistenceError::operational("the connection was lost").transient()
}

/// The ids of a page, its position and its lag.
fn summary(page: Result<Option<NotificationPage>, PersistenceError>) -> (Vec<i64>, i64, i64) {
    let page = page.unwrap().unwrap();
    (page.notifications.iter().map(|notification| notification.id).collect(), page.position, page.lag)
}

#[test]
fn pages_have_their_distance_to_the_end() {
    let recorder = Moody::with(vec![OPENED; 5]);
    let mut subscription = recorder.subscribe(0, []).page_size(pages_of(2));
    assert_eq!(summary(now(subscription.next_page())), (vec![1, 2], 2, 3));
    assert_eq!(summary(now(subscription.next_page())), (vec![3, 4], 4, 1));
    assert_eq!(summary(now(subscription.next_page())), (vec![5], 5, 0));
    assert_eq!(recorder.asked_for_end.load(Ordering::Relaxed), 2, "a short page ends the log");
}

#[test]
fn no_notification_of_a_topic_is_skipped_between_two_pages() {
    let recorder = Moody::with([OPENED, CLOSED, OPENED, CLOSED, OPENED, CLOSED]);
    let mut in_two = recorder.subscribe(0, [OPENED]).page_size(pages_of(2));
    assert_eq!(summary(now(in_two.next_page())), (vec![1, 3], 3, 3));
    assert_eq!(summary(now(in_two.next_page())), (vec![5], 6, 0));
    let mut in_three = recorder.subscribe(0, [OPENED]).page_size(pages_of(3));
    assert_eq!(summary(now(in_three.next_page())), (vec![1, 3, 5], 5, 1));
    assert_eq!(summary(now(in_three.next_page())), (vec![], 6, 0));
}

#[test]
fn a_subscription_continues_after_a_given_position() {
    let recorder = Moody::with(vec![OPENED; 5]);
    let mut subscription = recorder.subscribe(3, []);
    assert_eq!(subscription.position(), 3);
    assert_eq!(summary(now(subscription.next_page())), (vec![4, 5], 5, 0));
    assert_eq!(subscription.position(), 5);
    subscription.seek(2);
    assert_eq!(subscription.position(), 2);
    assert_eq!(summary(now(subscription.next_page())), (vec![3, 4, 5], 5, 0));
}

#[tokio::test]
async fn a_transient_failure_is_retried() {
    let recorder = Moody::with([OPENED]);
    recorder.fail_with([lost(), lost()]);
    let mut subscription = recorder.subscribe(0, []);
    assert_eq!(summary(subscription.next_page().await), (vec![1], 1, 0));
    assert!(recorder.failures.lock().unwrap().is_empty());
}

#[test]
fn a_permanent_failure_is_returned_and_moves_no_position() {
    let recorder = Moody::with([OPENED]);
    let full = || PersistenceError::operational("the disk is full");
    recorder.fail_with([full()]);
    let mut subscription = recorder.subscribe(0, []);
    assert_eq!(now(subscription.next_page()).unwrap_err().to_string(), "the disk is full");
    assert_eq!(summary(now(subscription.next_page())), (vec![1], 1, 0));

    recorder.fail_with([full()]);
    let mut stream = pin!(recorder.subscribe(0, []).into_stream());
    assert!(now(stream.next()).unwrap().is_err());
    assert!(now(stream.next()).is_none(), "an error is the last item");
}

#[test]
fn closing_ends_a_failing_subscription() {
    let recorder = Moody::with([OPENED]);
    recorder.fail_with([lost()]);
    let mut subscription = recorder.subscribe(0, []);
    let mut page = pin!(subscription.next_page());
    assert!(page.as_mut().now_or_never().is_none(), "it pauses before it tries again");
    now(recorder.close()).unwrap();
    assert_eq!(now(page).unwrap(), None);

    recorder.fail_with([PersistenceError::operational("the pool is gone")]);
    assert_eq!(now(recorder.subscribe(0, []).next_page()).unwrap(), None);
}

#[tokio::test]
async fn commits_without_a_notification_are_found_by_polling() {
    let recorder = Moody::with([]);
    let mut subscription = recorder.subscribe(0, []).poll_interval(Duration::ZERO);
    let mut page = pin!(subscription.next_page());
    assert!(page.as_mut().now_or_never().is_none());
    now(recorder.insert_events(vec![event(1, OPENED)])).unwrap();
    assert_eq!(summary(page.await), (vec![1], 1, 0));
}

#[test]
fn a_commit_is_read_once_by_each_subscription() {
    let recorder = Moody::with([OPENED]);
    let mut subscription = recorder.subscribe(0, []);
    assert_eq!(summary(now(subscription.next_page())), (vec![1], 1, 0));
    for version in 2..5 {
        let mut page = pin!(subscription.next_page());
        assert!(page.as_mut().now_or_never().is_none(), "it waits for a commit");
        now(recorder.insert_events(vec![event(version, OPENED)])).unwrap();
        recorder.commits.wake([OPENED.as_str()]);
        assert_eq!(summary(now(page)), (vec![version], version, 0));
    }
    assert_eq!(recorder.pages_read.load(Ordering::Relaxed), 4);
}

#[test]
fn a_commit_between_a_page_and_the_next_wait_is_received() {
    let recorder = Moody::with([OPENED]);
    let mut subscription = recorder.subscribe(0, []);
    assert_eq!(summary(now(subscription.next_page())), (vec![1], 1, 0));
    now(recorder.insert_events(vec![event(2, OPENED)])).unwrap();
    recorder.commits.wake([OPENED.as_str()]);
    assert_eq!(summary(now(subscription.next_page())), (vec![2], 2, 0));
}

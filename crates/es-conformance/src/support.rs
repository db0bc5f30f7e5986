//! Shared code of the rules: events to record, and calls that are expected to succeed.

use std::{
    env,
    future::Future,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Bytes, ErrorKind, EventRange, Listener,
    Notification, NotificationPage, NotificationSelection, PersistenceError, StoredEvent, Subscription,
    Topic, Tracking, uuid::Uuid,
};
use futures_util::{FutureExt, future::maybe_done};

pub(crate) const TOPIC: Topic = Topic::from_static("conformance:Aggregate.Changed");

pub(crate) const OTHER_TOPIC: Topic = Topic::from_static("conformance:Aggregate.Renamed");
pub(crate) const THIRD_TOPIC: Topic = Topic::from_static("conformance:Aggregate.Closed");

/// A polling interval longer than any rule: a task with this interval depends on notifications.
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// More notifications than any rule records.
const ALL: usize = 1_000_000;

/// The environment variable that selects the seed of random operations.
pub(crate) const SEED: &str = "ES_CONFORMANCE_SEED";

/// The default seed.
pub(crate) const DEFAULT_SEED: u64 = 0x5eed;

/// The environment variable that selects the number of sequences of operations.
pub(crate) const CASES: &str = "ES_CONFORMANCE_CASES";

/// Returns the seed of random operations, which is fixed unless the environment selects another one.
pub(crate) fn seed() -> u64 {
    env::var(SEED).map_or(DEFAULT_SEED, |text| text.parse().expect("the seed should be a number"))
}

/// Returns the number of sequences of random operations.
pub(crate) fn cases_or(default: u32) -> u32 {
    env::var(CASES).map_or(default, |text| text.parse().expect("the cases should be a number"))
}

pub(crate) fn event(originator_id: Uuid, originator_version: i64) -> StoredEvent {
    let state = Bytes::from(format!("state at {originator_version}"));
    StoredEvent { originator_id, originator_version, topic: TOPIC, state }
}

/// Returns an event with the id and version of [`event`] and another state.
pub(crate) fn late_event(originator_id: Uuid, originator_version: i64) -> StoredEvent {
    StoredEvent { state: Bytes::from_static(b"late"), ..event(originator_id, originator_version) }
}

pub(crate) fn events(originator_id: Uuid, versions: impl IntoIterator<Item = i64>) -> Vec<StoredEvent> {
    versions.into_iter().map(|version| event(originator_id, version)).collect()
}

/// Returns events whose topics alternate between three: the first, the other, the third, the first, …
pub(crate) fn events_of_three_topics(
    originator_id: Uuid,
    versions: impl IntoIterator<Item = i64>,
) -> Vec<StoredEvent> {
    let mut events = events(originator_id, versions);
    for (event, topic) in events.iter_mut().zip([TOPIC, OTHER_TOPIC, THIRD_TOPIC].into_iter().cycle()) {
        event.topic = topic;
    }
    events
}

pub(crate) fn tracking(application_name: &str, notification_id: i64) -> Tracking {
    Tracking::new(application_name, notification_id).expect("the name is one")
}

pub(crate) async fn insert(recorder: &impl AggregateRecorder, events: Vec<StoredEvent>) -> Vec<i64> {
    recorder.insert_events(events).await.expect("inserting should succeed")
}

/// Inserts events with a conflict.
pub(crate) async fn insert_refused(
    recorder: &impl AggregateRecorder,
    events: Vec<StoredEvent>,
) -> PersistenceError {
    let error = recorder.insert_events(events).await.expect_err("inserting a recorded version should fail");
    assert_eq!(error.kind(), ErrorKind::Integrity, "a recorded version is an integrity error: {error}");
    error
}

pub(crate) async fn select(
    recorder: &impl AggregateRecorder,
    originator_id: Uuid,
    range: EventRange,
) -> Vec<StoredEvent> {
    recorder.select_events(originator_id, range).await.expect("selecting events should succeed")
}

pub(crate) async fn select_all(recorder: &impl AggregateRecorder, originator_id: Uuid) -> Vec<StoredEvent> {
    select(recorder, originator_id, EventRange::all()).await
}

pub(crate) async fn versions(
    recorder: &impl AggregateRecorder,
    originator_id: Uuid,
    range: EventRange,
) -> Vec<i64> {
    versions_of(&select(recorder, originator_id, range).await)
}

pub(crate) fn versions_of(events: &[StoredEvent]) -> Vec<i64> {
    events.iter().map(|event| event.originator_version).collect()
}

pub(crate) async fn notifications(
    recorder: &impl ApplicationRecorder,
    selection: NotificationSelection,
) -> Vec<Notification> {
    recorder.select_notifications(selection).await.expect("selecting notifications should succeed")
}

/// Returns every notification, sorted by id: a separate rule checks that recorders sort.
pub(crate) async fn all_notifications(recorder: &impl ApplicationRecorder) -> Vec<Notification> {
    let mut all = notifications(recorder, NotificationSelection::new(ALL)).await;
    all.sort_by_key(|notification| notification.id);
    all
}

pub(crate) async fn all_ids(recorder: &impl ApplicationRecorder) -> Vec<i64> {
    ids_of(&all_notifications(recorder).await)
}

pub(crate) fn ids_of(notifications: &[Notification]) -> Vec<i64> {
    notifications.iter().map(|notification| notification.id).collect()
}

pub(crate) fn events_of(notifications: Vec<Notification>) -> Vec<StoredEvent> {
    notifications.into_iter().map(|notification| notification.event).collect()
}

/// Returns the ids that a selection should select.
pub(crate) fn expected_ids(all: &[Notification], selection: &NotificationSelection) -> Vec<i64> {
    all.iter()
        .filter(|notification| selection.contains(notification.id))
        .filter(|notification| {
            selection.topics.is_empty() || selection.topics.contains(&notification.event.topic)
        })
        .map(|notification| notification.id)
        .take(selection.limit)
        .collect()
}

pub(crate) fn page_size(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).expect("a page has a size")
}

/// Returns a subscription that does not poll.
pub(crate) fn subscribe<R: ApplicationRecorder>(
    recorder: &Arc<R>,
    position: i64,
    topics: impl AsRef<[Topic]>,
) -> Subscription<Arc<R>> {
    recorder.subscribe(position, topics).poll_interval(NEVER)
}

pub(crate) async fn next_page<R: ApplicationRecorder>(
    subscription: &mut Subscription<R>,
) -> NotificationPage {
    let page = subscription.next_page().await.expect("following should succeed");
    page.expect("the recorder is not closed")
}

/// Returns true if a listener was notified since the last call.
pub(crate) fn is_notified(listener: &mut Listener) -> bool {
    listener.notified().now_or_never().expect("the commit should have notified its listeners")
}

/// Polls a future at most `polls` times, then drops it, as a timeout or a cancelled request would.
pub(crate) async fn poll_then_drop<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut future = pin!(maybe_done(future));
    for _ in 0..polls {
        if poll_once(future.as_mut()).await {
            break;
        }
        tokio::task::yield_now().await;
    }
    future.take_output()
}

/// Polls a future once. Returns true if it is ready.
pub(crate) async fn poll_once<T: Future>(mut future: Pin<&mut T>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

pub(crate) fn assert_closed<T: std::fmt::Debug>(result: Result<T, PersistenceError>, method: &str) {
    let error = match result {
        Ok(value) => panic!("{method} of a closed recorder should fail and returned {value:?}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Interface, "{method} of a closed recorder: {error}");
}

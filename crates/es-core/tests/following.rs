//! Tests of signals, which wake only the listeners of their keys, and of subscriptions and waits, on
//! in-memory recorders.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorderExt, Bytes, ErrorKind, Recorder, Signal, StoredEvent, Topic,
    Tracking, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoTrackingRecorder};
use futures_util::{FutureExt, StreamExt};

const OPENED: Topic = Topic::from_static("bank:Account.Opened");
const CLOSED: Topic = Topic::from_static("bank:Account.Closed");

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn event(topic: Topic, originator_version: i64) -> StoredEvent {
    StoredEvent { originator_id: Uuid::nil(), originator_version, topic, state: Bytes::new() }
}

fn ids(page: Option<es_core::NotificationPage>) -> Vec<i64> {
    page.unwrap().notifications.iter().map(|notification| notification.id).collect()
}

#[test]
fn a_listener_is_woken_for_its_keys_only() {
    let signal = Signal::new();
    let mut opened = signal.listen([OPENED]);
    let mut anything = signal.listen::<&str>([]);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    assert!(opened.poll_notified(&mut context).is_pending());
    signal.wake([CLOSED.as_str()]);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    assert!(opened.poll_notified(&mut context).is_pending());
    assert_eq!(anything.notified().now_or_never(), Some(true));
    signal.wake([CLOSED.as_str(), OPENED.as_str()]);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "woken by the first");
    signal.wake([OPENED.as_str()]);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1, "one who is woken already is not woken again");
    assert_eq!(opened.poll_notified(&mut context), Poll::Ready(true));
}

#[test]
fn a_wake_up_between_two_waits_is_kept() {
    let signal = Signal::new();
    let mut listener = signal.listen([OPENED]);
    assert_eq!(listener.notified().now_or_never(), None);
    signal.wake_all();
    assert_eq!(listener.notified().now_or_never(), Some(true));
    assert_eq!(listener.notified().now_or_never(), None);
}

#[test]
fn there_are_no_listeners_after_the_last_is_dropped() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let signal = Signal::on_first_listener(move || {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let first = signal.listen([OPENED]);
    let second = signal.listen::<&str>([]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    drop((first, second));
    assert!(!signal.has_listeners());
    let _third = signal.listen([OPENED]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn dropping_a_listener_leaves_the_others() {
    let signal = Signal::new();
    let (mut opened, mut anything) = (signal.listen([OPENED]), signal.listen::<&str>([]));
    drop((signal.listen([OPENED]), signal.listen::<&str>([])));
    signal.wake([OPENED.as_str()]);
    assert_eq!(opened.notified().now_or_never(), Some(true));
    assert_eq!(anything.notified().now_or_never(), Some(true));
}

#[test]
fn closing_ends_every_wait() {
    let signal = Signal::new();
    let mut listener = signal.listen([OPENED]);
    signal.close();
    assert_eq!(listener.notified().now_or_never(), Some(false));
    assert_eq!(signal.listen([OPENED]).notified().now_or_never(), Some(false));
}

#[test]
fn a_waker_may_drop_a_listener() {
    struct DropsListener(std::sync::Mutex<Option<es_core::Listener>>);
    impl Wake for DropsListener {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
        }
    }
    let signal = Signal::new();
    let mut listener = signal.listen::<&str>([]);
    let waker = Waker::from(Arc::new(DropsListener(Some(signal.listen::<&str>([])).into())));
    assert!(listener.poll_notified(&mut Context::from_waker(&waker)).is_pending());
    signal.wake_all();
}

#[test]
fn a_subscription_returns_recorded_and_then_live_notifications() {
    let recorder = PopoApplicationRecorder::new();
    recorder
        .insert_events(vec![event(OPENED, 1), event(OPENED, 2), event(CLOSED, 3)])
        .now_or_never()
        .unwrap()
        .unwrap();
    let mut subscription = recorder.subscribe(1, []);
    assert_eq!(ids(subscription.next_page().now_or_never().unwrap().unwrap()), [2, 3]);
    assert!(subscription.next_page().now_or_never().is_none());
    recorder.insert_events(vec![event(CLOSED, 4)]).now_or_never().unwrap().unwrap();
    assert_eq!(ids(subscription.next_page().now_or_never().unwrap().unwrap()), [4]);
    recorder.close().now_or_never().unwrap().unwrap();
    assert_eq!(subscription.next_page().now_or_never().unwrap().unwrap(), None);
}

#[test]
fn a_position_moves_past_other_topics() {
    let recorder = PopoApplicationRecorder::new();
    let recorded =
        (1..=5).map(|version| event(if version == 2 { OPENED } else { CLOSED }, version)).collect();
    recorder.insert_events(recorded).now_or_never().unwrap().unwrap();
    let mut subscription = recorder.subscribe(0, [OPENED]);
    let page = subscription.next_page().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!((page.notifications.len(), page.position), (1, 5));
    let mut next = pin!(subscription.next_page());
    assert!(next.as_mut().now_or_never().is_none());
    recorder.insert_events(vec![event(CLOSED, 6)]).now_or_never().unwrap().unwrap();
    assert!(next.as_mut().now_or_never().is_none(), "another topic notifies no listener");
    let mut looking = recorder.subscribe(5, [OPENED]);
    let page = looking.next_page().now_or_never().unwrap().unwrap().unwrap();
    assert_eq!((page.notifications.len(), page.position, page.lag), (0, 6, 0));
}

#[test]
fn a_stream_of_a_subscription_ends_when_the_recorder_is_closed() {
    let recorder = PopoApplicationRecorder::new();
    recorder.insert_events(vec![event(OPENED, 1)]).now_or_never().unwrap().unwrap();
    let mut stream = pin!(recorder.subscribe(0, []).into_stream());
    assert_eq!(stream.next().now_or_never().unwrap().unwrap().unwrap().id, 1);
    assert!(stream.next().now_or_never().is_none());
    recorder.close().now_or_never().unwrap().unwrap();
    assert!(stream.next().now_or_never().unwrap().is_none());
}

#[test]
fn a_commit_wakes_a_waiter() {
    let recorder = PopoTrackingRecorder::new();
    let mut wait = pin!(recorder.wait("bank", 2, Duration::from_secs(3600)));
    assert!(wait.as_mut().now_or_never().is_none());
    recorder.insert_tracking(Tracking::new("other", 2).unwrap()).now_or_never().unwrap().unwrap();
    recorder.insert_tracking(Tracking::new("bank", 1).unwrap()).now_or_never().unwrap().unwrap();
    assert!(wait.as_mut().now_or_never().is_none());
    recorder.insert_tracking(Tracking::new("bank", 3).unwrap()).now_or_never().unwrap().unwrap();
    wait.now_or_never().unwrap().unwrap();
}

#[test]
fn waiting_ends_with_its_time_and_with_the_recorder() {
    let recorder = PopoTrackingRecorder::new();
    let error = recorder.wait("bank", 2, Duration::ZERO).now_or_never().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), "notification 2 was not processed by consumer \"bank\" within 0ns");
    let mut wait = pin!(recorder.wait("bank", 2, Duration::from_secs(3600)));
    assert!(wait.as_mut().now_or_never().is_none());
    recorder.close().now_or_never().unwrap().unwrap();
    assert_eq!(wait.now_or_never().unwrap().unwrap_err().kind(), ErrorKind::Interface);
}

#[test]
fn a_position_beyond_the_upstream_is_rejected() {
    let (recorder, upstream) = (PopoTrackingRecorder::new(), PopoApplicationRecorder::new());
    let verified = || recorder.validated_position("bank", &upstream).now_or_never().unwrap();
    assert_eq!(verified().unwrap(), None);
    recorder.insert_tracking(Tracking::new("bank", 2).unwrap()).now_or_never().unwrap().unwrap();
    for (version, highest) in [(1, "none"), (2, "1")] {
        let error = verified().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RolledBack);
        assert!(error.to_string().contains(&format!("highest notification id is {highest}:")), "{error}");
        upstream.insert_events(vec![event(OPENED, version)]).now_or_never().unwrap().unwrap();
    }
    assert_eq!(verified().unwrap(), Some(2));
    upstream.insert_events(vec![event(OPENED, 3)]).now_or_never().unwrap().unwrap();
    assert_eq!(verified().unwrap(), Some(2));
}

#[test]
fn a_pause_ends_when_the_signal_closes_and_not_before() {
    let signal = Signal::new();
    let mut pause = pin!(signal.closed_timeout(Duration::MAX));
    assert_eq!(pause.as_mut().now_or_never(), None);
    signal.wake_all();
    assert_eq!(pause.as_mut().now_or_never(), None);
    signal.close();
    assert_eq!(pause.as_mut().now_or_never(), Some(true));
}

#[test]
fn the_poll_interval_of_a_subscription_may_be_unlimited() {
    // The timer panics for an instant that the clock cannot represent.
    let recorder = PopoApplicationRecorder::new();
    let mut subscription = recorder.subscribe(0, []).poll_interval(Duration::MAX);
    let mut page = pin!(subscription.next_page());
    assert!(page.as_mut().now_or_never().is_none());
    recorder.insert_events(vec![event(OPENED, 1)]).now_or_never().unwrap().unwrap();
    assert_eq!(ids(page.now_or_never().unwrap().unwrap()), [1]);
}

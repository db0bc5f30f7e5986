//! Streams return the same items as one selection, a page at a time.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use es_core::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, ApplicationRecorderExt, Bytes, EventRange,
    Notification, NotificationSelection, PersistenceError, Recorder, Signal, StoredEvent, Topic, uuid::Uuid,
};
use es_popo::PopoApplicationRecorder;
use futures_util::{StreamExt, TryStreamExt};
use proptest::{option::of, prelude::*, sample::subsequence};
use support::{ID, now};

const TOPICS: [Topic; 2] = [Topic::from_static("even"), Topic::from_static("odd")];

/// Records the limits of all reads, and fails at the configured read.
#[derive(Debug, Default)]
struct Observed {
    recorder: PopoApplicationRecorder,
    limits: Mutex<Vec<usize>>,
    fails_at: AtomicUsize,
}

impl Observed {
    fn with_versions(versions: impl IntoIterator<Item = i64>) -> Self {
        let observed = Self::default();
        observed.fails_at.store(usize::MAX, Ordering::Relaxed);
        let events = versions.into_iter().map(|originator_version| StoredEvent {
            originator_id: ID,
            originator_version,
            topic: TOPICS[usize::from(originator_version % 2 != 0)].clone(),
            state: Bytes::new(),
        });
        now(observed.recorder.insert_events(events.collect())).unwrap();
        observed
    }

    fn read(&self, limit: usize) -> Result<(), PersistenceError> {
        let mut limits = self.limits.lock().unwrap();
        limits.push(limit);
        let fails = limits.len() > self.fails_at.load(Ordering::Relaxed);
        if fails { Err(PersistenceError::operational("the connection was lost")) } else { Ok(()) }
    }

    fn limits(&self) -> Vec<usize> {
        std::mem::take(&mut self.limits.lock().unwrap())
    }
}

impl Recorder for Observed {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.recorder.close().await
    }
}

impl AggregateRecorder for Observed {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.recorder.insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.read(range.limit.unwrap_or(usize::MAX))?;
        self.recorder.select_events(originator_id, range).await
    }
}

impl ApplicationRecorder for Observed {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.read(selection.limit)?;
        self.recorder.select_notifications(selection).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.recorder.max_notification_id().await
    }

    fn commit_signal(&self) -> &Signal {
        self.recorder.commit_signal()
    }
}

fn pages_of(size: usize) -> NonZeroUsize {
    NonZeroUsize::new(size).unwrap()
}

fn streamed(recorder: &Observed, page_size: usize, range: EventRange) -> Vec<StoredEvent> {
    now(recorder.stream_events_by(pages_of(page_size), ID, range).try_collect()).unwrap()
}

#[test]
fn a_short_page_is_the_last() {
    let recorder = Observed::with_versions(1..=10);
    assert_eq!(streamed(&recorder, 4, EventRange::all()).len(), 10);
    assert_eq!(recorder.limits(), [4, 4, 4]);
}

#[test]
fn a_full_page_may_be_followed_by_an_empty_one() {
    let recorder = Observed::with_versions(1..=8);
    assert_eq!(streamed(&recorder, 4, EventRange::all()).len(), 8);
    assert_eq!(recorder.limits(), [4, 4, 4]);
}

#[test]
fn no_more_is_read_than_the_limit() {
    let recorder = Observed::with_versions(1..=10);
    assert_eq!(streamed(&recorder, 4, EventRange::all().limit(6)).len(), 6);
    assert_eq!(recorder.limits(), [4, 2]);
    assert_eq!(streamed(&recorder, 4, EventRange::all().limit(0)), []);
    assert!(recorder.limits().is_empty());
}

#[test]
fn a_stream_reads_nothing_before_it_is_polled() {
    let recorder = Observed::with_versions(1..=10);
    let mut stream = Box::pin(recorder.stream_events_by(pages_of(3), ID, EventRange::all()));
    assert!(recorder.limits().is_empty());
    for _ in 0..3 {
        assert!(now(stream.next()).is_some());
    }
    assert_eq!(recorder.limits(), [3]);
}

#[test]
fn paging_ends_at_the_ends_of_the_versions() {
    let versions = [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX];
    let recorder = Observed::with_versions(versions);
    for page_size in 1..=5 {
        for (range, mut expected) in [(EventRange::all(), versions), (EventRange::all().desc(), versions)] {
            if range.desc {
                expected.reverse();
            }
            let events = streamed(&recorder, page_size, range);
            let versions: Vec<i64> = events.iter().map(|event| event.originator_version).collect();
            assert_eq!(versions, expected);
        }
    }
}

#[test]
fn an_error_is_the_last_item() {
    let recorder = Observed::with_versions(1..=10);
    recorder.fails_at.store(2, Ordering::Relaxed);
    let items: Vec<_> = now(recorder.stream_events_by(pages_of(3), ID, EventRange::all()).collect());
    assert_eq!(items.len(), 7);
    assert!(items[..6].iter().all(Result::is_ok) && items[6].is_err());

    recorder.limits();
    let selection = NotificationSelection::new(usize::MAX);
    let items: Vec<_> = now(recorder.stream_notifications_by(pages_of(3), selection).collect());
    assert_eq!(items.len(), 7);
    assert!(items[..6].iter().all(Result::is_ok) && items[6].is_err());
}

proptest! {
    #[test]
    fn a_stream_returns_the_items_of_a_selection(
        versions in subsequence((-8..=24_i64).collect::<Vec<_>>(), 0..=33),
        page_size in 1..12_usize,
        gt in of(-10..=26_i64),
        lte in of(-10..=26_i64),
        desc in any::<bool>(),
        limit in of(0..40_usize),
    ) {
        let recorder = Observed::with_versions(versions);
        let range = EventRange { gt, lte, desc, limit, max_bytes: None };
        let selected = now(recorder.select_events(ID, range)).unwrap();
        prop_assert_eq!(streamed(&recorder, page_size, range), selected);
    }

    #[test]
    fn a_stream_of_notifications_returns_the_items_of_a_selection(
        length in 0..40_i64,
        page_size in 1..12_usize,
        start in of((-2..42_i64, any::<bool>())),
        stop in of(-2..42_i64),
        topics in subsequence(TOPICS.to_vec(), 0..=2),
        limit in prop_oneof![0..50_usize, Just(usize::MAX)],
    ) {
        let recorder = Observed::with_versions(1..=length);
        let selection = NotificationSelection {
            start: start.map(|(id, _)| id),
            inclusive_of_start: start.is_none_or(|(_, inclusive)| inclusive),
            stop,
            topics,
            limit,
            max_bytes: None,
        };
        let selected = now(recorder.select_notifications(selection.clone())).unwrap();
        let stream = recorder.stream_notifications_by(pages_of(page_size), selection);
        prop_assert_eq!(now(stream.try_collect::<Vec<_>>()).unwrap(), selected);
    }
}

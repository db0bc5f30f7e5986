//! The rules of event streams of one aggregate, which read page by page.

use std::pin::pin;

use es_core::{AggregateRecorder, AggregateRecorderExt, EventRange, Recorder, StoredEvent, uuid::Uuid};
use futures_util::{StreamExt, TryStreamExt};

use crate::{
    Fixture,
    support::{assert_closed, events, insert, page_size, poll_then_drop, versions_of},
};

const BOTH_DIRECTIONS: [EventRange; 2] = [EventRange::all(), EventRange::all().desc()];

/// A stream with any page size, in both directions, returns the same events as one selection.
pub async fn event_pages_form_one_sequence(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 101..=150)).await;
    for size in [1, 2, 7, 25, 49, 50, 51] {
        for range in BOTH_DIRECTIONS {
            let mut expected: Vec<i64> = (101..=150).collect();
            if range.desc {
                expected.reverse();
            }
            assert_eq!(streamed(&recorder, size, id, range).await, expected, "pages of {size}, {range:?}");
        }
    }
}

/// Both bounds apply to every page, with any page size and with gaps in the versions.
pub async fn range_options_apply_across_event_pages(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    const VERSIONS: [i64; 10] = [0, 1, 3, 4, 9, 20, 41, 60, 77, 99];
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, VERSIONS)).await;
    for size in [1, 2, 3, 9, 10, 11] {
        for (gt, lte) in [(None, Some(20)), (Some(3), None), (Some(0), Some(77)), (Some(5), Some(6))] {
            for desc in [false, true] {
                let range = EventRange { gt, lte, desc, ..EventRange::all() };
                let within = |version: &i64| {
                    gt.is_none_or(|gt| *version > gt) && lte.is_none_or(|lte| *version <= lte)
                };
                let mut expected: Vec<i64> = VERSIONS.into_iter().filter(within).collect();
                if desc {
                    expected.reverse();
                }
                assert_eq!(
                    streamed(&recorder, size, id, range).await,
                    expected,
                    "pages of {size}, {range:?}"
                );
            }
        }
    }
}

/// The limit counts the events of all pages. It may be at the border of a page or beyond the end.
pub async fn limit_bounds_an_event_stream(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=12)).await;
    for size in [1, 2, 5, 12] {
        for limit in [0, 1, 4, 5, 6, 7, 10, 11, 12, 13, usize::MAX] {
            for range in BOTH_DIRECTIONS.map(|range| range.gt(0).limit(limit)) {
                let mut expected: Vec<i64> = (1..=12).collect();
                if range.desc {
                    expected.reverse();
                }
                expected.truncate(limit);
                assert_eq!(
                    streamed(&recorder, size, id, range).await,
                    expected,
                    "pages of {size}, {range:?}"
                );
            }
        }
    }
}

/// An error between two pages is the last item, so that a failed stream does not look complete.
pub async fn an_error_ends_an_event_stream(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=5)).await;
    let [forwards, backwards] = BOTH_DIRECTIONS.map(|range| range.gt(0));
    let mut forwards = pin!(recorder.stream_events_by(page_size(2), id, forwards));
    let mut backwards = pin!(recorder.stream_events_by(page_size(2), id, backwards));
    for (first, last) in [(1, 5), (2, 4)] {
        assert_eq!(forwards.next().await.map(version_of), Some(first));
        assert_eq!(backwards.next().await.map(version_of), Some(last));
    }
    recorder.close().await.expect("closing should succeed");
    assert_closed(forwards.next().await.transpose(), "a stream");
    assert_closed(backwards.next().await.transpose(), "a stream");
    assert!(forwards.next().await.is_none(), "an error is not the last item");
    assert!(backwards.next().await.is_none(), "an error is not the last item");
}

/// Streams that are dropped between pages, or while they read one, do not affect the recorder.
pub async fn event_streams_are_cancel_safe(fixture: &impl Fixture<Recorder: AggregateRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=8)).await;
    for read in 0..=5 {
        for polls in 0..4 {
            let mut stream = pin!(recorder.stream_events_by(page_size(2), id, EventRange::all()));
            for _ in 0..read {
                stream.next().await.expect("there is more").expect("streaming should succeed");
            }
            poll_then_drop(stream.next(), polls).await;
        }
    }
    insert(&recorder, events(id, [9])).await;
    let expected: Vec<i64> = (1..=9).collect();
    assert_eq!(streamed(&recorder, 2, id, EventRange::all()).await, expected);
}

/// Events recorded between two pages are returned in order or not at all, and no event is returned twice.
pub async fn concurrent_inserts_do_not_disturb_an_event_stream(
    fixture: &impl Fixture<Recorder: AggregateRecorder>,
) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, 1..=4)).await;
    let [forwards, backwards] = BOTH_DIRECTIONS;
    let mut forwards = pin!(recorder.stream_events_by(page_size(2), id, forwards));
    let mut backwards = pin!(recorder.stream_events_by(page_size(2), id, backwards));
    for (first, last) in [(1, 4), (2, 3)] {
        assert_eq!(forwards.next().await.map(version_of), Some(first));
        assert_eq!(backwards.next().await.map(version_of), Some(last));
    }
    insert(&recorder, events(id, [5, 6])).await;
    let forwards: Vec<StoredEvent> = forwards.try_collect().await.expect("streaming should succeed");
    let backwards: Vec<StoredEvent> = backwards.try_collect().await.expect("streaming should succeed");
    assert_eq!(versions_of(&forwards), [3, 4, 5, 6]);
    assert_eq!(versions_of(&backwards), [2, 1]);
}

async fn streamed(recorder: &impl AggregateRecorder, size: usize, id: Uuid, range: EventRange) -> Vec<i64> {
    let stream = recorder.stream_events_by(page_size(size), id, range);
    let streamed: Vec<StoredEvent> = stream.try_collect().await.expect("streaming should succeed");
    versions_of(&streamed)
}

fn version_of<E: std::fmt::Debug>(item: Result<StoredEvent, E>) -> i64 {
    item.expect("streaming should succeed").originator_version
}

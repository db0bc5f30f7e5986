//! The rules of notification streams, which read page by page.

use std::pin::pin;

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Notification, NotificationSelection,
    Recorder, uuid::Uuid,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::{
    Fixture,
    support::{
        OTHER_TOPIC, THIRD_TOPIC, TOPIC, all_ids, all_notifications, assert_closed, event, events,
        events_of_three_topics, expected_ids, ids_of, insert, insert_refused, page_size, poll_then_drop,
    },
};

const EVERYTHING: NotificationSelection = NotificationSelection::new(usize::MAX);

/// A stream with any page size returns the same notifications as one selection.
pub async fn notification_pages_form_one_sequence(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=150)).await;
    let all = all_notifications(&recorder).await;
    for size in [1, 2, 7, 50, 149, 150, 151] {
        let stream = recorder.stream_notifications_by(page_size(size), EVERYTHING);
        let streamed: Vec<Notification> = stream.try_collect().await.expect("streaming should succeed");
        assert_eq!(streamed, all, "pages of {size}");
    }
}

/// Start, stop and topics apply to every page, with any page size.
pub async fn selection_options_apply_across_pages(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events_of_three_topics(Uuid::new_v4(), 1..=10)).await;
    let all = all_notifications(&recorder).await;
    for size in [1, 2, 3, 9, 10, 11] {
        for started in [EVERYTHING, EVERYTHING.start(all[2].id), EVERYTHING.after(all[2].id)] {
            for stop in [None, Some(all[8].id)] {
                for topics in [vec![], vec![OTHER_TOPIC], vec![THIRD_TOPIC, TOPIC]] {
                    let selection = NotificationSelection { stop, topics, ..started.clone() };
                    let expected = expected_ids(&all, &selection);
                    let streamed = streamed(&recorder, size, selection.clone()).await;
                    assert_eq!(streamed, expected, "pages of {size}, {selection:?}");
                }
            }
        }
    }
}

/// The limit counts the notifications of all pages. It may be at the border of a page or beyond the end.
pub async fn limit_bounds_a_notification_stream(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=10)).await;
    let all = all_ids(&recorder).await;
    for size in [1, 2, 5, 10] {
        for limit in [0, 1, 4, 5, 6, 9, 10, 11, usize::MAX] {
            let expected: Vec<i64> = all.iter().take(limit).copied().collect();
            let streamed = streamed(&recorder, size, NotificationSelection::new(limit).start(all[0])).await;
            assert_eq!(streamed, expected, "pages of {size}, limit {limit}");
        }
    }
}

/// Ids that were allocated and never recorded do not end a stream early.
pub async fn gaps_do_not_end_a_stream(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    for version in 1..=8 {
        insert(&recorder, vec![event(one, version), event(other, version)]).await;
        // A recorder may have allocated ids for refused or cancelled insertions.
        insert_refused(&recorder, vec![event(one, version), event(other, version + 1)]).await;
        poll_then_drop(recorder.insert_events(vec![event(one, version), event(other, 99)]), 2).await;
    }
    let all = all_ids(&recorder).await;
    assert_eq!(all.len(), 16);
    for size in [1, 2, 5, 15, 16] {
        assert_eq!(streamed(&recorder, size, EVERYTHING).await, all, "pages of {size}");
    }
}

/// An error between two pages is the last item, so that a failed stream does not look complete.
pub async fn an_error_ends_a_notification_stream(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=5)).await;
    let all = all_ids(&recorder).await;
    let mut stream = pin!(recorder.stream_notifications_by(page_size(2), EVERYTHING.start(all[0])));
    for id in &all[..2] {
        assert_eq!(next_id(stream.next().await), *id);
    }
    recorder.close().await.expect("closing should succeed");
    assert_closed(stream.next().await.transpose(), "a stream");
    assert!(stream.next().await.is_none(), "an error is not the last item");
}

/// Streams that are dropped between pages, or while they read one, do not affect the recorder.
pub async fn notification_streams_are_cancel_safe(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=20)).await;
    for read in [0, 1, 7, 8, 9] {
        for polls in 0..4 {
            let mut stream = pin!(recorder.stream_notifications_by(page_size(8), EVERYTHING));
            for _ in 0..read {
                next_id(stream.next().await);
            }
            poll_then_drop(stream.next(), polls).await;
        }
    }
    insert(&recorder, events(Uuid::new_v4(), [1])).await;
    assert_eq!(streamed(&recorder, 8, EVERYTHING).await, all_ids(&recorder).await);
}

/// Events recorded between two pages are returned at the end, once.
pub async fn notifications_recorded_between_pages_are_streamed(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=12)).await;
    let mut stream = pin!(recorder.stream_notifications_by(page_size(6), EVERYTHING));
    let mut streamed = Vec::new();
    for _ in 0..6 {
        streamed.push(next_id(stream.next().await));
    }
    insert(&recorder, events(Uuid::new_v4(), 1..=4)).await;
    while let Some(item) = stream.next().await {
        streamed.push(next_id(Some(item)));
    }
    let all = all_ids(&recorder).await;
    assert_eq!(all.len(), 16);
    assert_eq!(streamed, all);
}

async fn streamed(
    recorder: &impl ApplicationRecorder,
    size: usize,
    selection: NotificationSelection,
) -> Vec<i64> {
    let stream = recorder.stream_notifications_by(page_size(size), selection);
    let streamed: Vec<Notification> = stream.try_collect().await.expect("streaming should succeed");
    ids_of(&streamed)
}

fn next_id<E: std::fmt::Debug>(item: Option<Result<Notification, E>>) -> i64 {
    item.expect("there is more").expect("streaming should succeed").id
}

//! The rules of all recorders with one total order of events.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use es_core::{
    ApplicationRecorder, Notification, NotificationSelection, Recorder, StoredEvent, Topic, uuid::Uuid,
};
use tokio::task::yield_now;

use crate::{
    Fixture,
    support::{
        OTHER_TOPIC, THIRD_TOPIC, TOPIC, all_ids, all_notifications, assert_closed, event, events, events_of,
        events_of_three_topics, expected_ids, ids_of, insert, insert_refused, notifications,
    },
};

/// An insertion returns one notification id for each event, in the order of the events.
pub async fn insert_returns_ids_in_event_order(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let batch = events(Uuid::new_v4(), [3, 1, 2]);
    let ids = insert(&recorder, batch.clone()).await;
    assert_eq!(ids.len(), 3);
    let mut returned: Vec<_> =
        ids.into_iter().zip(batch).map(|(id, event)| Notification { id, event }).collect();
    returned.sort_by_key(|notification| notification.id);
    assert_eq!(returned, all_notifications(&recorder).await);
}

/// Ids are positive, so that a consumer can start after 0.
pub async fn ids_are_positive(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=3)).await;
    let ids = all_ids(&recorder).await;
    assert!(ids.iter().all(|id| *id > 0), "{ids:?}");
}

/// Later events have greater ids.
pub async fn ids_increase(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    let mut ids = Vec::new();
    for version in [5, 6, 1] {
        ids.extend(insert(&recorder, events(id, [version])).await);
    }
    assert!(ids.is_sorted_by(|earlier, later| earlier < later), "{ids:?}");
}

/// The ids of a batch have no gaps.
pub async fn ids_of_a_batch_are_contiguous(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), 1..=5)).await;
    let ids = all_ids(&recorder).await;
    assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{ids:?}");
}

/// Notifications are selected in the order of recording, regardless of aggregates and versions.
pub async fn notifications_are_ordered_by_id(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let [one, other] = [Uuid::max(), Uuid::from_u128(1)];
    let mut inserted = Vec::new();
    for batch in [vec![event(one, 2), event(one, 1)], vec![event(other, 9)], vec![event(other, 3)]] {
        insert(&recorder, batch.clone()).await;
        inserted.extend(batch);
    }
    let selected = notifications(&recorder, NotificationSelection::new(1_000)).await;
    assert!(selected.is_sorted_by_key(|notification| notification.id));
    assert_eq!(events_of(selected), inserted);
}

/// `start` includes its bound.
pub async fn start_is_inclusive(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(100).start(ids[3]), &ids[3..]).await;
}

/// `after` excludes its bound.
pub async fn after_is_exclusive(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(100).after(ids[3]), &ids[4..]).await;
}

/// `stop` includes its bound.
pub async fn stop_is_inclusive(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(100).stop(ids[3]), &ids[..=3]).await;
}

/// The limit bounds the number of selected notifications.
pub async fn limit_bounds_a_page(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(3), &ids[..3]).await;
}

/// A limit of 0 selects no notifications.
pub async fn limit_zero_selects_no_notifications(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, _) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(0), &[]).await;
}

/// A limit beyond the range of `bigint` is accepted and has no effect.
pub async fn page_limit_may_exceed_bigint(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    for limit in [i64::MAX as usize, i64::MAX as usize + 1, usize::MAX] {
        assert_selects(&recorder, NotificationSelection::new(limit), &ids).await;
    }
}

/// A topic selects the notifications of that topic only.
pub async fn a_topic_filter_selects_its_events(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    let selection = NotificationSelection::new(100).topics([OTHER_TOPIC]);
    assert_selects(&recorder, selection, &[ids[1], ids[4], ids[7]]).await;
}

/// Several topics select the notifications of each of them.
pub async fn a_filter_may_have_several_topics(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    let selection = NotificationSelection::new(100).topics([OTHER_TOPIC, THIRD_TOPIC]);
    assert_selects(&recorder, selection, &[ids[1], ids[2], ids[4], ids[5], ids[7]]).await;
}

/// A topic without events selects nothing.
pub async fn an_unused_topic_selects_nothing(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, _) = with_eight(fixture).await;
    for unused in ["conformance", "conformance:Aggregate.%", "' OR ''='"] {
        let selection = NotificationSelection::new(100).topics([Topic::from_static(unused)]);
        assert_selects(&recorder, selection, &[]).await;
    }
}

/// Start, stop, topics and limit can be combined; the limit is applied last.
pub async fn selection_options_combine(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, _) = with_eight(fixture).await;
    let all = all_notifications(&recorder).await;
    let [second, sixth] = [all[1].id, all[5].id];
    for start in [None, Some((second, true)), Some((second, false))] {
        for stop in [None, Some(sixth)] {
            for topics in [vec![], vec![OTHER_TOPIC], vec![THIRD_TOPIC, TOPIC]] {
                for limit in [0, 1, 2, 100] {
                    let mut selection = NotificationSelection::new(limit).topics(&topics);
                    selection.start = start.map(|(id, _)| id);
                    selection.inclusive_of_start = start.is_none_or(|(_, inclusive)| inclusive);
                    selection.stop = stop;
                    if options(&selection) > 1 {
                        let expected = expected_ids(&all, &selection);
                        assert_selects(&recorder, selection, &expected).await;
                    }
                }
            }
        }
    }
}

/// A selection that starts after the last id is empty.
pub async fn start_beyond_the_end_selects_nothing(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(100).start(ids[7] + 1), &[]).await;
    assert_selects(&recorder, NotificationSelection::new(100).start(ids[7] + 1_000), &[]).await;
}

/// A stop before the start selects nothing.
pub async fn stop_before_start_selects_nothing(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    assert_selects(&recorder, NotificationSelection::new(100).start(ids[5]).stop(ids[3]), &[]).await;
}

/// Bounds at both ends of `bigint`, and negative ones, are accepted.
pub async fn selection_bounds_cover_the_bigint_range(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let (recorder, ids) = with_eight(fixture).await;
    let selection = NotificationSelection::new(100);
    for low in [i64::MIN, i64::MIN + 1, ids[0] - 1] {
        assert_selects(&recorder, selection.clone().start(low), &ids).await;
        assert_selects(&recorder, selection.clone().after(low), &ids).await;
        assert_selects(&recorder, selection.clone().stop(low), &[]).await;
    }
    assert_selects(&recorder, selection.clone().start(i64::MAX), &[]).await;
    assert_selects(&recorder, selection.clone().after(i64::MAX), &[]).await;
    assert_selects(&recorder, selection.clone().stop(i64::MAX), &ids).await;
}

/// An empty recorder has no highest notification id.
pub async fn an_empty_recorder_has_no_max_notification_id(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorder = fixture.open().await;
    assert_eq!(max_id(&recorder).await, None);
}

/// The highest notification id is that of the last event.
pub async fn the_max_notification_id_is_that_of_the_last_event(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorder = fixture.open().await;
    for version in [1, 4, 7] {
        insert(&recorder, events(Uuid::new_v4(), [version, version + 1])).await;
        assert_eq!(max_id(&recorder).await, all_ids(&recorder).await.last().copied());
    }
}

/// Refused events never appear in notifications.
pub async fn refused_events_are_never_visible(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    insert_refused(&recorder, vec![StoredEvent { topic: OTHER_TOPIC, ..event(id, 1) }]).await;
    insert(&recorder, events(id, [2])).await;
    assert_eq!(events_of(all_notifications(&recorder).await), events(id, [1, 2]));
}

/// After `close()`, reading notifications fails with an interface error.
pub async fn reading_notifications_fails_after_close(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    insert(&recorder, events(Uuid::new_v4(), [1])).await;
    recorder.close().await.expect("closing should succeed");
    let selection = NotificationSelection::new(1);
    assert_closed(recorder.select_notifications(selection).await, "select_notifications");
    assert_closed(recorder.max_notification_id().await, "max_notification_id");
}

/// New events follow the recorded ones when the datastore is opened again.
pub async fn the_order_persists_after_close(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1, 2])).await;
    let before = all_notifications(&recorder).await;
    recorder.close().await.expect("closing should succeed");
    drop(recorder);

    let reopened = fixture.open().await;
    insert(&reopened, events(id, [3])).await;
    let after = all_notifications(&reopened).await;
    assert_eq!(after[..2], before);
    assert_eq!(events_of(after), events(id, 1..=3));
}

/// Events recorded through one recorder are notifications of another one on the same datastore.
pub async fn notifications_are_visible_to_other_recorders(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let [one, other] = [fixture.open().await, fixture.open().await];
    for version in 1..=3 {
        insert(&one, events(Uuid::new_v4(), [version])).await;
        let ids = all_ids(&one).await;
        assert_eq!(all_ids(&other).await, ids);
        assert_eq!(max_id(&other).await, ids.last().copied());
    }
}

/// Readers that read concurrently with many writers receive every event once, in order.
pub async fn tailing_readers_miss_no_notifications(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    const WRITERS: usize = 6;
    const INSERTIONS: i64 = 24;
    let finished = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        readers.push(tokio::spawn(follow(fixture.open().await, Arc::clone(&finished))));
    }
    let writers = spawn_writers(fixture, WRITERS, INSERTIONS, &[1, 4]).await;
    let mut written = 0;
    for writer in writers {
        written += writer.await.expect("a writer should finish");
    }
    finished.store(true, Ordering::Release);

    let mut followed = Vec::new();
    for reader in readers {
        followed.push(reader.await.expect("a reader should finish"));
    }
    let all = all_notifications(&fixture.open().await).await;
    assert_eq!(all.len(), written);
    let ids = ids_of(&all);
    for seen in followed {
        let seen_ids = ids_of(&seen);
        let missed: Vec<_> = ids.iter().filter(|id| !seen_ids.contains(id)).collect();
        assert!(missed.is_empty(), "a reader missed {missed:?}");
        assert!(seen == all, "a reader saw {seen_ids:?}");
    }
}

/// Reads pages after the last id seen, until a page is empty and the writers have finished.
async fn follow<R: ApplicationRecorder>(recorder: R, finished: Arc<AtomicBool>) -> Vec<Notification> {
    let mut seen: Vec<Notification> = Vec::new();
    loop {
        // Checked before reading: only an empty page that was read afterwards is the end.
        let finished = finished.load(Ordering::Acquire);
        let mut selection = NotificationSelection::new(64);
        if let Some(last) = seen.last() {
            selection = selection.after(last.id);
        }
        let page = notifications(&recorder, selection).await;
        if page.is_empty() && finished {
            return seen;
        }
        if page.is_empty() {
            yield_now().await;
        }
        seen.extend(page);
    }
}

/// Concurrent batches are not interleaved.
pub async fn batches_are_not_interleaved(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    for writer in spawn_writers(fixture, 6, 10, &[3]).await {
        writer.await.expect("a writer should finish");
    }
    let all = all_notifications(&fixture.open().await).await;
    let mut finished: BTreeSet<Vec<u8>> = BTreeSet::new();
    for batch in all.chunk_by(|one, next| one.event.state == next.event.state) {
        assert_eq!(batch.len(), 3, "a batch is interrupted by another one");
        assert!(finished.insert(batch[0].event.state.to_vec()), "a batch occurs twice");
    }
}

/// Starts writers that each insert batches of the given sizes, in turn, into an aggregate of their own. The
/// events of a batch have the same state. Each writer returns the number of its events.
async fn spawn_writers(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
    writers: usize,
    insertions: i64,
    sizes: &'static [i64],
) -> Vec<tokio::task::JoinHandle<usize>> {
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    (0..writers)
        .map(|writer| tokio::spawn(write_batches(Arc::clone(&recorders[writer % 2]), insertions, sizes)))
        .collect()
}

async fn write_batches<R: ApplicationRecorder>(recorder: Arc<R>, insertions: i64, sizes: &[i64]) -> usize {
    let recorder: &R = &recorder;
    let id = Uuid::new_v4();
    let mut version = 0;
    for (insertion, size) in (0..insertions).zip(sizes.iter().cycle()) {
        let mut batch = events(id, version + 1..=version + size);
        for event in &mut batch {
            event.state = format!("{id} {insertion}").into();
        }
        assert_eq!(insert(recorder, batch).await.len() as i64, *size);
        version += size;
    }
    version as usize
}

/// Eight notifications with three topics: the first, the other, the third, the first, …
async fn with_eight<F: Fixture<Recorder: ApplicationRecorder>>(fixture: &F) -> (F::Recorder, Vec<i64>) {
    let recorder = fixture.open().await;
    insert(&recorder, events_of_three_topics(Uuid::new_v4(), 1..=8)).await;
    let ids = all_ids(&recorder).await;
    assert_eq!(ids.len(), 8);
    (recorder, ids)
}

async fn assert_selects(
    recorder: &impl ApplicationRecorder,
    selection: NotificationSelection,
    expected: &[i64],
) {
    let selected = notifications(recorder, selection.clone()).await;
    assert_eq!(ids_of(&selected), expected, "{selection:?}");
}

async fn max_id(recorder: &impl ApplicationRecorder) -> Option<i64> {
    recorder.max_notification_id().await.expect("reading the highest id should succeed")
}

/// The number of options set; a limit beyond the end does not count.
fn options(selection: &NotificationSelection) -> usize {
    let topics = !selection.topics.is_empty();
    [selection.start.is_some(), selection.stop.is_some(), topics, selection.limit < 100]
        .into_iter()
        .filter(|given| *given)
        .count()
}

//! The rules of subscriptions: every notification is delivered exactly once, past and new ones, with
//! concurrent writers and dropped futures.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::{ApplicationRecorder, Notification, Recorder, StoredEvent, Subscription, Topic, uuid::Uuid};
use futures_util::{
    TryStreamExt,
    future::{join, maybe_done},
};
use tokio::{
    sync::Barrier,
    task::{JoinHandle, yield_now},
};

use crate::{
    Fixture,
    support::{
        OTHER_TOPIC, THIRD_TOPIC, TOPIC, all_ids, all_notifications, event, events, events_of_three_topics,
        ids_of, insert, next_page, page_size, poll_once, poll_then_drop, subscribe,
    },
};

/// The topic of the event after which nothing is recorded.
const END: Topic = Topic::from_static("conformance:Aggregate.Ended");
const QUIET: Topic = Topic::from_static("conformance:Aggregate.Noted");

/// A subscription starts after its position, at the beginning, in the middle or at the end of the log, and
/// continues with new events.
pub async fn a_subscription_starts_after_its_position(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    insert(&*recorder, events(Uuid::new_v4(), 1..=30)).await;
    let past = all_ids(&*recorder).await;
    let mut subscriptions: Vec<_> = [0, past[0], past[14], past[29]]
        .map(|position| (position, subscribe(&recorder, position, []).page_size(page_size(21))))
        .into();
    for (position, subscription) in &mut subscriptions {
        let expected: Vec<i64> = past.iter().filter(|id| *id > position).copied().collect();
        assert_eq!(read_to(subscription, past[29]).await, expected, "after {position}");
    }
    insert(&*recorder, events(Uuid::new_v4(), 1..=2)).await;
    let all = all_ids(&*recorder).await;
    for (position, subscription) in &mut subscriptions {
        assert_eq!(read_to(subscription, all[31]).await, all[30..], "live, after {position}");
    }
}

/// A subscription whose position is beyond the end of the log fails, since the log has lost events. It works
/// again once the log has reached the position.
pub async fn a_subscription_beyond_the_end_fails(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    insert(&*recorder, events(Uuid::new_v4(), 1..=5)).await;
    let position = all_ids(&*recorder).await[4] + 2;
    let mut subscription = subscribe(&recorder, position, []).page_size(page_size(12));
    let error = subscription.next_page().await.expect_err("the log ends before the position");
    assert!(error.is_rolled_back(), "{error}");
    insert(&*recorder, events(Uuid::new_v4(), 1..=10)).await;
    let all = all_ids(&*recorder).await;
    let expected: Vec<i64> = all.iter().filter(|id| **id > position).copied().collect();
    assert_eq!(read_to(&mut subscription, all[14]).await, expected);
}

/// Subscriptions that start before and during concurrent writes receive every event once, in the order of
/// ids.
pub async fn concurrent_writes_are_delivered_once(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    insert(&*recorders[0], events(Uuid::new_v4(), 1..=20)).await;
    let middle = all_ids(&*recorders[0]).await[9];
    let mut followers = Vec::new();
    let all = write_concurrently(&recorders, || {
        for (recorder, position, size) in [(0, 0, 1), (1, 0, 13), (0, middle, 1_000)] {
            let subscription = impatient(&recorders[recorder], position, [], size);
            followers.push((position, tokio::spawn(follow_to_the_end(subscription))));
        }
    });
    let all = all.await;
    for (position, follower) in followers {
        let expected: Vec<_> = all.iter().filter(|each| each.id > position).cloned().collect();
        assert_follows(follower.await.expect("a follower should finish"), &expected);
    }
}

/// Subscriptions to topics receive every event of their topics once, with concurrent writers.
pub async fn concurrent_writes_of_a_topic_are_delivered_once(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    insert(&*recorders[0], events_of_three_topics(Uuid::new_v4(), 1..=20)).await;
    let mut followers = Vec::new();
    let all = write_concurrently(&recorders, || {
        for size in [1, 150] {
            let subscription = impatient(&recorders[0], 0, [OTHER_TOPIC, END], size);
            followers.push(tokio::spawn(follow_to_the_end(subscription)));
        }
    });
    let mut expected = all.await;
    expected.retain(|each| [OTHER_TOPIC, END].contains(&each.event.topic));
    for follower in followers {
        assert_follows(follower.await.expect("a follower should finish"), &expected);
    }
}

/// A subscription to topics receives all events of these topics and no others, with any page size.
pub async fn topic_filters_work_with_any_page_size(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    let mut past = events(Uuid::new_v4(), 1..=40);
    for index in [0, 17, 18, 36] {
        past[index].topic = OTHER_TOPIC;
    }
    past[19].topic = THIRD_TOPIC;
    insert(&*recorder, past).await;
    insert(&*recorder, events(Uuid::new_v4(), [1])).await;
    let all = all_ids(&*recorder).await;
    for size in [1, 2, 15, 1_000] {
        let topics = [OTHER_TOPIC, THIRD_TOPIC];
        let mut subscription = subscribe(&recorder, 0, topics).page_size(page_size(size));
        let followed = read_to(&mut subscription, all[40]).await;
        assert_eq!(followed, [0, 17, 18, 19, 36].map(|index: usize| all[index]), "pages of {size}");
    }
}

/// The position advances past notifications of other topics, so that they are not read again.
pub async fn the_position_advances_past_other_topics(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    let id = Uuid::new_v4();
    let mut subscription = subscribe(&recorder, 0, [OTHER_TOPIC]);
    for (version, topic, is_followed) in [(1, OTHER_TOPIC, true), (2, QUIET, false), (3, OTHER_TOPIC, true)] {
        insert(&*recorder, vec![StoredEvent { topic, ..event(id, version) }]).await;
        let last = all_notifications(&*recorder).await.pop().expect("there is one");
        let page = next_page(&mut subscription).await;
        assert_eq!(page.position, last.id);
        assert_eq!(page.lag, 0);
        assert_eq!(page.notifications, if is_followed { vec![last] } else { vec![] });
    }
}

/// A subscription that is not read while many events are recorded keeps no more than a page of them,
/// reports its lag, and catches up.
pub async fn a_lagging_subscription_catches_up(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    let id = Uuid::new_v4();
    insert(&*recorder, events(id, [1])).await;
    let mut subscription = subscribe(&recorder, 0, []).page_size(page_size(10));
    assert_eq!(next_page(&mut subscription).await.notifications.len(), 1);
    for version in 2..=36 {
        insert(&*recorder, events(id, [version])).await;
    }
    let all = all_ids(&*recorder).await;
    for page in all[1..].chunks(10) {
        let read = next_page(&mut subscription).await;
        assert_eq!(ids_of(&read.notifications), page);
        assert_eq!(Some(&read.position), page.last());
        assert_eq!(read.lag, all[35] - read.position);
    }
}

/// If the future of a page or the subscription is dropped, a new subscription continues at the position.
pub async fn a_subscription_can_be_resumed(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    insert(&*recorder, events(Uuid::new_v4(), 1..=40)).await;
    let (mut seen, mut position) = (Vec::new(), 0);
    for polls in 0..6 {
        let mut subscription = subscribe(&recorder, position, []).page_size(page_size(9));
        for _ in 0..2 {
            let page = poll_then_drop(subscription.next_page(), polls).await;
            let page = page.and_then(|page| page.expect("following should succeed"));
            seen.extend(page.into_iter().flat_map(|page| page.notifications));
        }
        position = subscription.position();
    }
    insert(&*recorder, events(Uuid::new_v4(), [1])).await;
    let all = all_ids(&*recorder).await;
    let mut seen = ids_of(&seen);
    seen.extend(read_to(&mut subscribe(&recorder, position, []).page_size(page_size(9)), all[40]).await);
    assert_eq!(seen, all);
}

/// Closing the recorder ends waiting subscriptions without an error.
pub async fn close_ends_a_waiting_subscription(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    insert(&*recorder, events(Uuid::new_v4(), [1])).await;
    let mut subscription = subscribe(&recorder, 0, []);
    next_page(&mut subscription).await;
    let stream = subscribe(&recorder, subscription.position(), [TOPIC]).into_stream();
    let followed = tokio::spawn(async move { pin!(stream).try_next().await });
    let closed = {
        let mut waiting = pin!(maybe_done(subscription.next_page()));
        for _ in 0..50 {
            assert!(!poll_once(waiting.as_mut()).await, "there is nothing to read");
            yield_now().await;
        }
        let (closed, ()) = join(recorder.close(), waiting.as_mut()).await;
        assert_eq!(waiting.take_output().expect("it is done").expect("ending is no error"), None);
        closed
    };
    closed.expect("closing should succeed");
    let followed = followed.await.expect("the follower should finish");
    assert_eq!(followed.expect("ending is no error"), None);
    assert_eq!(subscription.next_page().await.expect("having ended is no error"), None);
}

/// Closing the recorder ends subscriptions that are still reading without an error. New ones end immediately.
pub async fn close_ends_an_active_subscription_in_order(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorder = Arc::new(fixture.open().await);
    insert(&*recorder, events(Uuid::new_v4(), 1..=20)).await;
    let mut subscription = subscribe(&recorder, 0, []).page_size(page_size(1));
    let mut closing = pin!(maybe_done(recorder.close()));
    while !poll_once(closing.as_mut()).await {
        subscription.seek(0);
        subscription.next_page().await.expect("a subscription that closing overtakes has no error");
        yield_now().await;
    }
    closing.take_output().expect("it is done").expect("closing should succeed");
    subscription.seek(0);
    for mut subscription in [subscription, subscribe(&recorder, 0, []), subscribe(&recorder, 0, [TOPIC])] {
        assert_eq!(subscription.next_page().await.expect("ending is no error"), None);
    }
}

/// Closing a recorder does not end the subscriptions of others.
pub async fn close_leaves_other_subscriptions_open(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let [recorder, other] = fixture.open_two().await;
    let other = Arc::new(other);
    let mut subscription = subscribe(&other, 0, []);
    {
        let mut waiting = pin!(maybe_done(subscription.next_page()));
        assert!(!poll_once(waiting.as_mut()).await, "there is nothing to read");
        recorder.close().await.expect("closing should succeed");
        for _ in 0..50 {
            assert!(!poll_once(waiting.as_mut()).await, "the subscription of another recorder has ended");
            yield_now().await;
        }
    }
    let ids = insert(&*other, events(Uuid::new_v4(), [1])).await;
    assert_eq!(ids_of(&next_page(&mut subscription).await.notifications), ids);
}

/// Returns the ids that a subscription reads until its position is `last`.
async fn read_to<R: ApplicationRecorder>(subscription: &mut Subscription<R>, last: i64) -> Vec<i64> {
    let mut read = Vec::new();
    while subscription.position() < last {
        let before = subscription.position();
        let page = next_page(subscription).await;
        assert!(page.position > before, "the position does not move on from {before}");
        assert_eq!(subscription.position(), page.position);
        read.extend(ids_of(&page.notifications));
    }
    read
}

/// A subscription that polls at short intervals: even where recorders do not detect the commits of others,
/// it must not miss an event.
fn impatient<R: ApplicationRecorder>(
    recorder: &Arc<R>,
    position: i64,
    topics: impl AsRef<[Topic]>,
    size: usize,
) -> Subscription<Arc<R>> {
    subscribe(recorder, position, topics).page_size(page_size(size)).poll_interval(Duration::from_millis(10))
}

async fn follow_to_the_end<R: ApplicationRecorder>(subscription: Subscription<R>) -> Vec<Notification> {
    let mut stream = pin!(subscription.into_stream());
    let mut followed = Vec::new();
    while let Some(notification) = stream.try_next().await.expect("following should succeed") {
        let is_end = notification.event.topic == END;
        followed.push(notification);
        if is_end {
            break;
        }
    }
    followed
}

/// Records through each recorder concurrently, calls `meanwhile` before the first event and when each
/// has recorded half of its events, and ends the log. Returns the whole log.
async fn write_concurrently<R: ApplicationRecorder + 'static>(
    recorders: &[Arc<R>],
    mut meanwhile: impl FnMut(),
) -> Vec<Notification> {
    const WRITERS: usize = 4;
    let barrier = Arc::new(Barrier::new(WRITERS + 1));
    let writers: Vec<JoinHandle<()>> = recorders
        .iter()
        .cycle()
        .take(WRITERS)
        .map(|recorder| tokio::spawn(write(Arc::clone(recorder), Arc::clone(&barrier))))
        .collect();
    meanwhile();
    barrier.wait().await;
    barrier.wait().await;
    meanwhile();
    for writer in writers {
        writer.await.expect("a writer should finish");
    }
    let end = StoredEvent { topic: END, ..event(Uuid::new_v4(), 1) };
    insert(&*recorders[0], vec![end]).await;
    all_notifications(&*recorders[0]).await
}

async fn write<R: ApplicationRecorder>(recorder: Arc<R>, barrier: Arc<Barrier>) {
    let recorder: &R = &recorder;
    let id = Uuid::new_v4();
    let mut version = 0;
    for _half in 0..2 {
        barrier.wait().await;
        for size in [1, 4, 1, 4, 1, 4] {
            insert(recorder, events_of_three_topics(id, version + 1..=version + size)).await;
            version += size;
        }
    }
}

fn assert_follows(followed: Vec<Notification>, expected: &[Notification]) {
    let (ids, expected_ids) = (ids_of(&followed), ids_of(expected));
    let missed: Vec<_> = expected_ids.iter().filter(|id| !ids.contains(id)).collect();
    assert!(missed.is_empty(), "a subscription missed {missed:?}");
    assert!(followed == expected, "a subscription read {ids:?}, and the log is {expected_ids:?}");
}

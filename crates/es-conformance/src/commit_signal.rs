//! The rules of the commit signal: a commit notifies every listener of its topics, after it is readable and
//! before its caller receives the result.

use std::sync::Arc;

use es_core::{AggregateRecorder, ApplicationRecorder, Notification, uuid::Uuid};
use tokio::sync::mpsc;

use crate::{
    Fixture,
    support::{
        OTHER_TOPIC, THIRD_TOPIC, TOPIC, all_ids, all_notifications, events, insert, is_notified, next_page,
        poll_then_drop, subscribe,
    },
};

/// A commit notifies the listeners of its topic and of all topics before its caller receives the result.
pub async fn a_commit_notifies_listeners(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let mut any = recorder.commit_signal().listen::<&str>([]);
    let mut topic = recorder.commit_signal().listen([TOPIC, OTHER_TOPIC]);
    for size in [1, 2, 5, 1] {
        insert(&recorder, events(Uuid::new_v4(), 1..=size)).await;
        assert!(is_notified(&mut any));
        assert!(is_notified(&mut topic));
    }
}

/// A commit with events of several topics notifies the listeners of each of them.
pub async fn every_topic_of_a_commit_notifies(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    for turn in 0..3 {
        let mut listeners =
            [TOPIC, OTHER_TOPIC, THIRD_TOPIC].map(|topic| (recorder.commit_signal().listen([&topic]), topic));
        let mut batch = events(id, 4 * turn + 1..=4 * turn + 4);
        batch[1].topic = OTHER_TOPIC;
        batch[3].topic = THIRD_TOPIC;
        insert(&recorder, batch).await;
        for (listener, topic) in &mut listeners {
            assert!(is_notified(listener), "{topic}");
        }
    }
}

/// A commit notifies all listeners, regardless of their number.
pub async fn every_listener_is_notified(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    let recorder = fixture.open().await;
    let mut listeners: Vec<_> = (0..16)
        .flat_map(|_| [recorder.commit_signal().listen::<&str>([]), recorder.commit_signal().listen([TOPIC])])
        .collect();
    for version in 1..=3 {
        insert(&recorder, events(Uuid::new_v4(), [version])).await;
        assert!(listeners.iter_mut().all(is_notified));
    }
}

/// A commit is readable when its listeners are notified: a subscription without polling receives every event.
pub async fn listeners_are_notified_after_the_commit(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    const BATCHES: i64 = 40;
    const SIZE: i64 = 6;
    let recorder = Arc::new(fixture.open().await);
    let mut subscription = subscribe(&recorder, 0, []);
    let (sender, mut received) = mpsc::unbounded_channel::<Notification>();
    let follower = tokio::spawn(async move {
        loop {
            for notification in next_page(&mut subscription).await.notifications {
                sender.send(notification).expect("it is received");
            }
        }
    });
    let mut followed = Vec::new();
    for batch in 0..BATCHES {
        insert(&*recorder, events(Uuid::new_v4(), 1..=SIZE)).await;
        while (followed.len() as i64) < (batch + 1) * SIZE {
            followed.push(received.recv().await.expect("the follower goes on"));
        }
    }
    follower.abort();
    assert_eq!(followed, all_notifications(&*recorder).await);
}

/// An insertion that was cancelled and committed nevertheless notifies listeners.
pub async fn a_cancelled_insert_notifies_if_it_committed(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    let recorder = fixture.open().await;
    for polls in 0..12 {
        let mut listener = recorder.commit_signal().listen([TOPIC]);
        let recorded = all_ids(&recorder).await.len();
        poll_then_drop(recorder.insert_events(events(Uuid::new_v4(), 1..=14)), polls / 2).await;
        if all_ids(&recorder).await.len() > recorded {
            // It may be readable a moment before it is notified.
            assert!(listener.notified().await);
        }
    }
}

/// Commits of another recorder of the datastore notify listeners, starting with the first commit after they
/// began to listen.
pub async fn commits_of_other_recorders_notify(fixture: &impl Fixture<Recorder: ApplicationRecorder>) {
    if !fixture.follows_others() {
        return;
    }
    let [recorder, other] = [fixture.open().await, fixture.open().await];
    let mut any = recorder.commit_signal().listen::<&str>([]);
    let mut topic = recorder.commit_signal().listen([TOPIC]);
    for version in 1..=3 {
        insert(&other, events(Uuid::new_v4(), [version])).await;
        assert!(any.notified().await);
        assert!(topic.notified().await);
        assert_eq!(all_ids(&recorder).await.len() as i64, version);
    }
}

/// A recorder that had no listeners for a while detects commits of other recorders again as soon as it has
/// one.
pub async fn commits_of_other_recorders_notify_later_listeners(
    fixture: &impl Fixture<Recorder: ApplicationRecorder>,
) {
    if !fixture.follows_others() {
        return;
    }
    let [recorder, other] = [fixture.open().await, fixture.open().await];
    drop(recorder.commit_signal().listen::<&str>([]));
    for version in 1..=3 {
        let mut listener = recorder.commit_signal().listen::<&str>([]);
        insert(&other, events(Uuid::new_v4(), [version])).await;
        assert!(listener.notified().await);
    }
}

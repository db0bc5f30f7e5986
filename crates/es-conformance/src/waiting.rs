//! The rules of waiting until a notification has been processed, and of notifying waiting tasks.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::{ErrorKind, PersistenceError, Recorder, TrackingRecorder, TrackingRecorderExt};
use futures_util::future::{join, maybe_done};
use tokio::task::yield_now;

use crate::{
    Fixture,
    support::{NEVER, is_notified, poll_once, poll_then_drop, tracking},
};

/// Waiting for a processed notification returns immediately, with any timeout.
pub async fn a_wait_for_a_processed_notification_returns_immediately(
    fixture: &impl Fixture<Recorder: TrackingRecorder>,
) {
    let recorder = fixture.open().await;
    for id in [3, 20, 1 << 40] {
        track(&recorder, "upstream", id).await;
        wait(&recorder, "upstream", id, Duration::ZERO).await.expect("it has been processed");
        wait(&recorder, "upstream", id, NEVER).await.expect("it has been processed");
    }
}

/// A position notifies the listeners of its application and of all applications before its caller receives
/// the result.
pub async fn a_recorded_position_notifies_listeners(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let mut any = recorder.tracking_signal().listen::<&str>([]);
    let mut upstream = recorder.tracking_signal().listen(["upstream", "another upstream"]);
    for (name, id) in [("upstream", 1), ("upstream", 21), ("another upstream", 5)] {
        track(&recorder, name, id).await;
        assert!(is_notified(&mut any));
        assert!(is_notified(&mut upstream));
    }
}

/// A wait ends when its position is recorded.
pub async fn a_recorded_position_ends_a_wait(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    for id in 31..=50 {
        let waiting = tokio::spawn({
            let recorder = Arc::clone(&recorder);
            async move { wait(&*recorder, "upstream", id, NEVER).await }
        });
        track(&*recorder, "upstream", id).await;
        let waited = waiting.await.expect("the waiting task should finish");
        waited.expect("a processed notification ends the wait");
    }
}

/// A wait also ends when a later position is recorded.
pub async fn a_later_position_ends_a_wait(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for (id, later) in [(2, 4), (22, 30)] {
        let mut waiting = pin!(maybe_done(wait(&recorder, "upstream", id, NEVER)));
        assert_waits(waiting.as_mut()).await;
        join(track(&recorder, "upstream", later), waiting.as_mut()).await;
        waiting.take_output().expect("it is done").expect("a later position ends the wait");
        let at_once = wait(&recorder, "upstream", id, Duration::ZERO).await;
        at_once.expect("it has been processed");
    }
}

/// Positions of other applications do not end a wait, regardless of their ids and names.
pub async fn another_application_does_not_end_a_wait(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let mut waiting = pin!(maybe_done(wait(&recorder, "first", 23, NEVER)));
    assert_waits(waiting.as_mut()).await;
    for (name, id) in [("second", 23), ("second", 100), ("firs", 23), ("first ", 24), ("first", 12)] {
        track(&recorder, name, id).await;
        assert_waits(waiting.as_mut()).await;
        let waited = wait(&recorder, "first", 23, Duration::ZERO).await;
        assert_eq!(kind(waited), Some(ErrorKind::TimedOut), "after {name:?} at {id}");
    }
    join(track(&recorder, "first", 23), waiting.as_mut()).await;
    waiting.take_output().expect("it is done").expect("a processed notification ends the wait");
}

/// A wait that times out fails with kind `TimedOut` and can be repeated.
pub async fn a_wait_times_out(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for timeout in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(1)] {
        assert_eq!(kind(wait(&recorder, "unknown", 40, timeout).await), Some(ErrorKind::TimedOut));
    }
    track(&recorder, "unknown", 39).await;
    assert_eq!(kind(wait(&recorder, "unknown", 40, Duration::ZERO).await), Some(ErrorKind::TimedOut));
    track(&recorder, "unknown", 40).await;
    wait(&recorder, "unknown", 40, Duration::ZERO).await.expect("it has been processed");
}

/// A position notifies all waiting tasks, regardless of their number and of the positions they wait for.
pub async fn all_waiting_tasks_are_notified(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    let waiting: Vec<_> = (1..=32)
        .map(|id| {
            let recorder = Arc::clone(&recorder);
            tokio::spawn(async move { wait(&*recorder, "upstream", id, NEVER).await })
        })
        .collect();
    let mut listeners: Vec<_> = (0..32).map(|_| recorder.tracking_signal().listen(["upstream"])).collect();
    for id in [8, 16, 32] {
        track(&*recorder, "upstream", id).await;
        assert!(listeners.iter_mut().all(is_notified));
    }
    for waiting in waiting {
        let waited = waiting.await.expect("the waiting task should finish");
        waited.expect("a processed notification ends the wait");
    }
}

/// Closing the recorder ends waits with an interface error.
pub async fn close_ends_a_wait(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let mut listener = recorder.tracking_signal().listen(["upstream"]);
    let mut waiting = pin!(maybe_done(wait(&recorder, "upstream", 60, NEVER)));
    assert_waits(waiting.as_mut()).await;
    let (closed, ()) = join(recorder.close(), waiting.as_mut()).await;
    closed.expect("closing should succeed");
    assert_eq!(kind(waiting.take_output().expect("it is done")), Some(ErrorKind::Interface));
    assert!(!is_notified(&mut listener), "a closed recorder notifies no listeners");
    assert_eq!(kind(wait(&recorder, "upstream", 60, NEVER).await), Some(ErrorKind::Interface));
}

/// Closing a recorder does not end the waits of others.
pub async fn close_leaves_other_waits_open(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let [recorder, other] = fixture.open_two().await;
    let mut waiting = pin!(maybe_done(wait(&other, "upstream", 65, NEVER)));
    assert_waits(waiting.as_mut()).await;
    recorder.close().await.expect("closing should succeed");
    assert_waits(waiting.as_mut()).await;
    let ((), ()) = join(track(&other, "upstream", 65), waiting.as_mut()).await;
    assert_eq!(kind(waiting.take_output().expect("it is done")), None);
}

/// Dropping a wait at any point does not change the recorder.
pub async fn waiting_is_cancel_safe(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for polls in 0..8 {
        poll_then_drop(wait(&recorder, "upstream", 70, NEVER), polls).await;
    }
    track(&recorder, "upstream", 70).await;
    wait(&recorder, "upstream", 70, Duration::ZERO).await.expect("it has been processed");
}

/// A position that another recorder of the datastore records notifies listeners.
pub async fn positions_of_other_recorders_notify(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    if !fixture.follows_others() {
        return;
    }
    let [recorder, other] = [fixture.open().await, fixture.open().await];
    for _period in 0..2 {
        let mut any = recorder.tracking_signal().listen::<&str>([]);
        let mut upstream = recorder.tracking_signal().listen(["followed"]);
        for _ in 0..2 {
            let next = recorder.max_tracking_id("followed").await.expect("reading should succeed");
            track(&other, "followed", next.unwrap_or(0) + 1).await;
            assert!(any.notified().await);
            assert!(upstream.notified().await);
        }
    }
}

async fn wait(
    recorder: &impl TrackingRecorder,
    application_name: &str,
    notification_id: i64,
    timeout: Duration,
) -> Result<(), PersistenceError> {
    recorder.wait(application_name, notification_id, timeout).await
}

/// Polls a future several times and asserts that it is not ready.
async fn assert_waits<T: Future>(mut waiting: std::pin::Pin<&mut T>) {
    for _ in 0..50 {
        assert!(!poll_once(waiting.as_mut()).await, "waiting ended early");
        yield_now().await;
    }
}

fn kind<T>(result: Result<T, PersistenceError>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

async fn track(recorder: &impl TrackingRecorder, application_name: &str, notification_id: i64) {
    let recorded = recorder.insert_tracking(tracking(application_name, notification_id)).await;
    recorded.expect("recording a greater position should succeed");
}

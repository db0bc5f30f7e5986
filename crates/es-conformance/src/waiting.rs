//! The rules of waiting until a notification has been processed, and of notifying the waiting tasks.

use std::{pin::pin, sync::Arc, time::Duration};

use es_core::{ErrorKind, PersistenceError, Recorder, TrackingRecorder, TrackingRecorderExt};
use futures_util::future::{join, maybe_done};
use tokio::task::yield_now;

use crate::{
    Fixture,
    support::{NEVER, is_woken, poll_once, poll_then_drop, tracking},
};

/// Waiting for a processed notification returns immediately, with any timeout.
pub async fn what_is_processed_is_not_waited_for(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for id in [3, 20, 1 << 40] {
        track(&recorder, "upstream", id).await;
        wait(&recorder, "upstream", id, Duration::ZERO).await.expect("it has been processed");
        wait(&recorder, "upstream", id, NEVER).await.expect("it has been processed");
    }
}

/// Before its caller gets the result, a position notifies the listeners of its application and of all
/// applications.
pub async fn a_recorded_position_wakes_who_listens(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let mut any = recorder.tracking_signal().listen::<&str>([]);
    let mut upstream = recorder.tracking_signal().listen(["upstream", "another upstream"]);
    for (name, id) in [("upstream", 1), ("upstream", 21), ("another upstream", 5)] {
        track(&recorder, name, id).await;
        assert!(is_woken(&mut any));
        assert!(is_woken(&mut upstream));
    }
}

/// A wait ends when the position is recorded, position after position.
pub async fn a_recorded_position_ends_waiting(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    for id in 31..=50 {
        let waiting = tokio::spawn({
            let recorder = Arc::clone(&recorder);
            async move { wait(&*recorder, "upstream", id, NEVER).await }
        });
        track(&*recorder, "upstream", id).await;
        let waited = waiting.await.expect("who waits should finish");
        waited.expect("what is processed ends waiting");
    }
}

/// Positions may be left out: a later one ends waiting, too.
pub async fn a_later_position_ends_waiting(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for (id, later) in [(2, 4), (22, 30)] {
        let mut waiting = pin!(maybe_done(wait(&recorder, "upstream", id, NEVER)));
        assert_waits(waiting.as_mut()).await;
        join(track(&recorder, "upstream", later), waiting.as_mut()).await;
        waiting.take_output().expect("it is done").expect("a later position ends waiting");
        let at_once = wait(&recorder, "upstream", id, Duration::ZERO).await;
        at_once.expect("it has been processed");
    }
}

/// Positions of other applications, with whatever ids and names, do not end waiting.
pub async fn another_application_does_not_end_waiting(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
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
    waiting.take_output().expect("it is done").expect("what is processed ends waiting");
}

/// A wait that times out fails with a kind of its own, and may be repeated.
pub async fn waiting_times_out(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
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
pub async fn everybody_who_waits_is_woken(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
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
        assert!(listeners.iter_mut().all(is_woken));
    }
    for waiting in waiting {
        let waited = waiting.await.expect("who waits should finish");
        waited.expect("what is processed ends waiting");
    }
}

/// Closing the recorder ends waiting, with an interface error.
pub async fn closing_ends_waiting(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let mut listener = recorder.tracking_signal().listen(["upstream"]);
    let mut waiting = pin!(maybe_done(wait(&recorder, "upstream", 60, NEVER)));
    assert_waits(waiting.as_mut()).await;
    let (closed, ()) = join(recorder.close(), waiting.as_mut()).await;
    closed.expect("closing should succeed");
    assert_eq!(kind(waiting.take_output().expect("it is done")), Some(ErrorKind::Interface));
    assert!(!is_woken(&mut listener), "nothing wakes who listens to a closed recorder");
    assert_eq!(kind(wait(&recorder, "upstream", 60, NEVER).await), Some(ErrorKind::Interface));
}

/// Dropping a wait at any point does not change the recorder.
pub async fn dropped_waiting_does_no_harm(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for polls in 0..8 {
        poll_then_drop(wait(&recorder, "upstream", 70, NEVER), polls).await;
    }
    track(&recorder, "upstream", 70).await;
    wait(&recorder, "upstream", 70, Duration::ZERO).await.expect("it has been processed");
}

/// A position that another recorder of the datastore records ends the wait.
pub async fn others_positions_wake(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
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

/// Gives a future time to do what it can; it must not be ready.
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

//! The rules of every recorder that keeps events and tracking positions in one commit.

use std::{ops::RangeInclusive, sync::Arc};

use es_core::{
    ApplicationRecorder, Conflict, ErrorKind, EventRange, PersistenceError, ProcessRecorder, Recorder,
    StoredEvent, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use futures_util::{
    FutureExt,
    future::{join, join_all},
};
use tokio::sync::Barrier;

use crate::{
    Fixture,
    support::{
        NEVER, TOPIC, all_notifications, assert_closed, event, events, ids_of, insert, is_notified,
        poll_then_drop, select_all, tracking, versions,
    },
};

const UPSTREAM: &str = "upstream";

/// Events and position are recorded together.
pub async fn events_and_position_are_recorded_together(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    process(&recorder, events(id, [1, 2]), 5).await;
    assert_eq!(select_all(&recorder, id).await, events(id, [1, 2]));
    assert_eq!(position(&recorder).await, Some(5));
}

/// An insertion returns one notification id for each event, in the order of the events.
pub async fn insert_with_tracking_returns_ids(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let ids = process(&recorder, events(Uuid::new_v4(), 1..=3), 5).await;
    assert_eq!(ids, ids_of(&all_notifications(&recorder).await));
}

/// A position can be recorded without events: the notification had no consequences.
pub async fn a_position_may_be_recorded_without_events(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    assert!(process(&recorder, Vec::new(), 5).await.is_empty());
    assert_eq!(position(&recorder).await, Some(5));
    process_refused(&recorder, Vec::new(), 5).await;
}

/// Events that are recorded without a position do not change it.
pub async fn events_without_tracking_leave_the_position_unchanged(
    fixture: &impl Fixture<Recorder: ProcessRecorder>,
) {
    let recorder = fixture.open().await;
    recorder.insert_tracking(tracking(UPSTREAM, 5)).await.expect("tracking should succeed");
    insert(&recorder, events(Uuid::new_v4(), 1..=5)).await;
    assert_eq!(position(&recorder).await, Some(5));
}

/// If the position is refused, the events are not recorded.
pub async fn a_refused_position_records_no_events(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    recorder.insert_tracking(tracking(UPSTREAM, 5)).await.expect("tracking should succeed");
    for refused in [5, 4] {
        process_refused(&recorder, events(id, [2, 3]), refused).await;
        assert_eq!(select_all(&recorder, id).await, events(id, [1]));
    }
}

/// If the events are refused, the position is not recorded.
pub async fn refused_events_record_no_position(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    insert(&recorder, events(id, [1])).await;
    process_refused(&recorder, events(id, [2, 1]), 5).await;
    assert_eq!(position(&recorder).await, None);
    process(&recorder, events(id, [2]), 5).await;
}

/// A conflict names its cause, a version or a position.
pub async fn a_conflict_names_its_cause(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let originator_id = Uuid::new_v4();
    process(&recorder, events(originator_id, [1]), 5).await;

    let error = process_refused(&recorder, events(originator_id, [2]), 4).await;
    let application_name = UPSTREAM.to_owned();
    assert_eq!(error.conflict(), Some(&Conflict::Tracking { application_name, notification_id: 4 }));

    let error = process_refused(&recorder, events(originator_id, [2, 1]), 6).await;
    assert_eq!(error.conflict(), Some(&Conflict::Version { originator_id, originator_version: 1 }));
}

/// If both the position and a version conflict, the error names the position: the notification is processed,
/// whereas a version conflict calls for a retry.
pub async fn a_tracking_conflict_takes_precedence(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let originator_id = Uuid::new_v4();
    let assert_names = |error: &PersistenceError, notification_id| {
        let application_name = UPSTREAM.to_owned();
        assert_eq!(error.conflict(), Some(&Conflict::Tracking { application_name, notification_id }));
    };
    process(&recorder, events(originator_id, 1..=4), 5).await;
    assert_names(&process_refused(&recorder, events(originator_id, 1..=4), 5).await, 5);

    let rival = || recorder.insert_events_with_tracking(events(originator_id, 5..=8), tracking(UPSTREAM, 6));
    let (one, other) = join(rival(), rival()).await;
    assert!(one.is_ok() || other.is_ok(), "one of the rivals should win");
    assert_names(&one.and(other).expect_err("the other one should lose"), 6);
}

/// Events are recorded if the recorded position is the expected one. If it is before the expected one, they
/// are refused with kind `RolledBack`.
pub async fn events_require_the_expected_position(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let id = Uuid::new_v4();
    let process_after = async |expected, notification_id, versions: RangeInclusive<i64>| {
        let tracking = tracking(UPSTREAM, notification_id).after(expected).expect("it is one");
        recorder.insert_events_with_tracking(events(id, versions), tracking).await
    };
    process_after(0, 5, 1..=2).await.expect("none is recorded");
    process_after(5, 8, 3..=4).await.expect("the expected position is the recorded one");

    let conflict = process_after(5, 9, 5..=6).await.expect_err("another position is recorded");
    let application_name = UPSTREAM.to_owned();
    let expected = Conflict::Tracking { application_name, notification_id: 9 };
    assert_eq!((conflict.kind(), conflict.conflict()), (ErrorKind::Integrity, Some(&expected)), "{conflict}");

    for versions in [5..=5, 5..=6, 4..=6] {
        let lost = process_after(10, 11, versions).await.expect_err("an earlier position is recorded");
        assert_eq!((lost.kind(), lost.conflict()), (ErrorKind::RolledBack, None), "{lost}");
    }
    assert_eq!(versions(&recorder, id, EventRange::all()).await, [1, 2, 3, 4]);
    assert_eq!(position(&recorder).await, Some(8));
}

/// Positions that each expect the previous one are recorded in order, even if all are requested concurrently.
/// A refused one does not fail the others.
pub async fn concurrent_expected_positions_are_recorded_in_order(
    fixture: &impl Fixture<Recorder: ProcessRecorder>,
) {
    let recorder = fixture.open().await;
    let ids: Vec<Uuid> = (0..12).map(|_| Uuid::new_v4()).collect();
    insert(&recorder, ids.iter().map(|id| event(*id, 1)).collect()).await;
    let requests = ids.iter().zip(1..).map(|(id, notification)| {
        // Every fourth one expects a position that is never recorded.
        let beyond = if notification % 4 == 0 { 90 } else { 0 };
        let first = notification - notification / 4 + beyond;
        let tracking = tracking(UPSTREAM, first).after(first - 1).expect("it is one");
        let request = recorder.insert_events_with_tracking(events(*id, [2]), tracking);
        request.map(move |outcome| (first, id, outcome))
    });
    let mut recorded = Vec::new();
    for (first, id, outcome) in join_all(requests).await {
        let is_recorded = select_all(&recorder, *id).await.len() == 2;
        assert_eq!(is_recorded, outcome.is_ok(), "{outcome:?}");
        match outcome {
            Ok(_) => recorded.push(first),
            Err(error) => assert!(error.is_rolled_back(), "{error}"),
        }
    }
    recorded.sort_unstable();
    assert_eq!(position(&recorder).await, recorded.last().copied());
    assert_eq!(recorded, (1..=recorded.len() as i64).collect::<Vec<_>>());
}

/// If several consumers process the same notification concurrently, exactly one succeeds, and the others
/// record nothing.
pub async fn one_of_several_consumers_processes_a_notification(
    fixture: &impl Fixture<Recorder: ProcessRecorder>,
) {
    const CONSUMERS: usize = 6;
    const NOTIFICATIONS: i64 = 10;
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let barrier = Arc::new(Barrier::new(CONSUMERS));
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|consumer| {
            let recorder = Arc::clone(&recorders[consumer % 2]);
            tokio::spawn(race(recorder, Arc::clone(&barrier), NOTIFICATIONS))
        })
        .collect();
    let mut processed = Vec::new();
    for consumer in consumers {
        processed.extend(consumer.await.expect("a consumer should finish"));
    }

    // Each consumer writes to aggregates of its own, so that only the position can collide.
    let all = all_notifications(&*recorders[0]).await;
    let mut recorded: Vec<_> = all.into_iter().map(|notification| notification.event).collect();
    processed.sort_by_key(|event: &StoredEvent| event.originator_version);
    recorded.sort_by_key(|event| event.originator_version);
    let versions: Vec<_> = recorded.iter().map(|event| event.originator_version).collect();
    assert_eq!(versions, (1..=NOTIFICATIONS).collect::<Vec<_>>());
    assert_eq!(recorded, processed, "the acknowledged events differ from the recorded ones");
}

/// Returns the events that this consumer recorded, one for each notification that it processed first.
async fn race<R: ProcessRecorder>(
    recorder: Arc<R>,
    barrier: Arc<Barrier>,
    notifications: i64,
) -> Vec<StoredEvent> {
    let recorder: &R = &recorder;
    let mut recorded = Vec::new();
    for notification in 1..=notifications {
        let event = event(Uuid::new_v4(), notification);
        barrier.wait().await;
        let outcome =
            recorder.insert_events_with_tracking(vec![event.clone()], tracking(UPSTREAM, notification));
        match outcome.await {
            Ok(_) => recorded.push(event),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{error}"),
        }
    }
    recorded
}

/// If the future is dropped at any point, either both events and position are recorded or neither.
pub async fn cancelled_processing_is_atomic(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let mut recorder = fixture.open().await;
    let ids: Vec<Uuid> = (0..12).map(|_| Uuid::new_v4()).collect();
    insert(&recorder, ids.iter().map(|id| event(*id, 1)).collect()).await;
    for (polls, id) in ids.iter().enumerate() {
        let insertion =
            recorder.insert_events_with_tracking(events(*id, 2..=4), tracking(&id.to_string(), 5));
        poll_then_drop(insertion, polls / 2).await;
    }
    recorder.close().await.expect("closing should succeed");
    recorder = fixture.open().await;
    for id in ids {
        // The position is read first: a write between the two reads is complete.
        let tracked = recorder.max_tracking_id(&id.to_string()).await.expect("reading should succeed");
        let versions = versions(&recorder, id, EventRange::all()).await;
        match tracked {
            Some(_) => assert_eq!(versions, [1, 2, 3, 4], "the position is recorded without its events"),
            None => assert_eq!(versions, [1], "the events are recorded without their position"),
        }
    }
}

/// Events that are recorded with a position notify subscribers, like any other events.
pub async fn processing_notifies_subscribers(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let mut listener = recorder.commit_signal().listen([TOPIC]);
    for position in 1..=3 {
        process(&recorder, events(Uuid::new_v4(), 1..=4), position).await;
        assert!(is_notified(&mut listener));
    }
}

/// A position that is recorded with events notifies the tasks that wait for it, which can read the events.
pub async fn processing_notifies_waiting_tasks(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = Arc::new(fixture.open().await);
    let id = Uuid::new_v4();
    let waiting = tokio::spawn({
        let recorder = Arc::clone(&recorder);
        async move {
            let waited = recorder.wait(UPSTREAM, 3, NEVER).await;
            waited.expect("a processed notification ends the wait");
            versions(&*recorder, id, EventRange::all()).await
        }
    });
    let mut listener = recorder.tracking_signal().listen([UPSTREAM]);
    for position in 1..=3 {
        let first = 4 * position - 3;
        process(&*recorder, events(id, first..first + 4), position).await;
        assert!(is_notified(&mut listener));
    }
    let read = waiting.await.expect("the waiting task should finish");
    assert_eq!(read, (1..=12).collect::<Vec<_>>());
}

/// A position beyond the highest notification id of the upstream, which has lost processed events, is an
/// error; any other position is returned.
pub async fn a_position_beyond_the_log_is_an_error(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    let verified = recorder.validated_position("restored", &recorder).await;
    assert_eq!(verified.expect("there is no position yet"), None);
    insert(&recorder, events(Uuid::new_v4(), 1..=4)).await;
    insert(&recorder, events(Uuid::new_v4(), [1])).await;
    let last = ids_of(&all_notifications(&recorder).await)[4];
    for position in [last - 1, last] {
        recorder.insert_tracking(tracking("restored", position)).await.expect("tracking should succeed");
        let verified = recorder.validated_position("restored", &recorder).await;
        assert_eq!(verified.expect("the log has what was processed"), Some(position));
    }
    recorder.insert_tracking(tracking("restored", last + 20)).await.expect("tracking should succeed");
    let lost = recorder.validated_position("restored", &recorder).await;
    assert_eq!(lost.expect_err("the log ends before the position").kind(), ErrorKind::RolledBack);
}

/// After `close()`, processing fails with an interface error.
pub async fn processing_fails_after_close(fixture: &impl Fixture<Recorder: ProcessRecorder>) {
    let recorder = fixture.open().await;
    recorder.close().await.expect("closing should succeed");
    let outcome = recorder.insert_events_with_tracking(events(Uuid::new_v4(), [1]), tracking(UPSTREAM, 1));
    assert_closed(outcome.await, "insert_events_with_tracking");
}

async fn process(
    recorder: &impl ProcessRecorder,
    events: Vec<StoredEvent>,
    notification_id: i64,
) -> Vec<i64> {
    let ids = recorder.insert_events_with_tracking(events, tracking(UPSTREAM, notification_id)).await;
    ids.expect("processing should succeed")
}

async fn process_refused(
    recorder: &impl ProcessRecorder,
    events: Vec<StoredEvent>,
    notification_id: i64,
) -> PersistenceError {
    let refused = recorder.insert_events_with_tracking(events, tracking(UPSTREAM, notification_id)).await;
    let error = refused.expect_err("processing with a conflict should fail");
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    error
}

async fn position(recorder: &impl ProcessRecorder) -> Option<i64> {
    recorder.max_tracking_id(UPSTREAM).await.expect("reading a position should succeed")
}

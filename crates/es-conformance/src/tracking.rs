//! The rules of every recorder that keeps tracking positions.

use std::sync::Arc;

use es_core::{Conflict, ErrorKind, PersistenceError, Recorder, Tracking, TrackingRecorder};
use tokio::{
    sync::Barrier,
    task::{JoinHandle, yield_now},
};

use crate::{
    Fixture,
    support::{assert_closed, tracking},
};

/// An application of which nothing was processed has no position.
pub async fn there_is_no_initial_position(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "other", 5).await;
    assert_eq!(position(&recorder, "upstream").await, None);
}

/// No notification of an application without a position has been processed.
pub async fn nothing_is_processed_initially(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for id in [i64::MIN, 0, 1, i64::MAX] {
        assert!(!processed(&recorder, "upstream", id).await, "notification {id}");
    }
}

/// A greater position takes the place of the one before.
pub async fn positions_increase(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for id in [1, 2, 50] {
        track(&recorder, "upstream", id).await;
        assert_eq!(position(&recorder, "upstream").await, Some(id));
    }
}

/// Ids up to the position are processed, including ids in gaps; greater ids are not.
pub async fn notifications_up_to_the_position_are_processed(
    fixture: &impl Fixture<Recorder: TrackingRecorder>,
) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    for id in [i64::MIN, 1, 6, 7] {
        assert!(processed(&recorder, "upstream", id).await, "notification {id}");
    }
    for id in [8, i64::MAX] {
        assert!(!processed(&recorder, "upstream", id).await, "notification {id}");
    }
}

/// A position that equals the recorded one is refused.
pub async fn an_equal_position_is_refused(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    track_refused(&recorder, "upstream", 7).await;
}

/// A position before the recorded one is refused, even if it was never recorded.
pub async fn a_smaller_position_is_refused(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    track_refused(&recorder, "upstream", 6).await;
    track_refused(&recorder, "upstream", 1).await;
}

/// A greater position is refused if the first notification that it accounts for is processed: another
/// consumer with smaller batches was faster.
pub async fn a_span_that_overlaps_the_position_is_refused(
    fixture: &impl Fixture<Recorder: TrackingRecorder>,
) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 5).await;
    for first in [1, 4, 5] {
        let several = Tracking::spanning("upstream", first, 10).expect("it is one");
        let refused = recorder.insert_tracking(several).await;
        assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Integrity), "from {first} on");
    }
    let next = Tracking::spanning("upstream", 6, 10).expect("it is one");
    recorder.insert_tracking(next).await.expect("the next notifications should be accepted");
    assert_eq!(position(&recorder, "upstream").await, Some(10));
}

/// A conflict names the application and the refused position.
pub async fn a_conflict_names_the_position(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    for notification_id in [5, 3] {
        let error = track_refused(&recorder, "upstream", notification_id).await;
        let application_name = "upstream".to_owned();
        assert_eq!(error.conflict(), Some(&Conflict::Tracking { application_name, notification_id }));
    }
}

/// A refused position changes nothing.
pub async fn a_refused_position_changes_nothing(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    track_refused(&recorder, "upstream", 3).await;
    assert_eq!(position(&recorder, "upstream").await, Some(7));
    track(&recorder, "upstream", 8).await;
}

/// Each application has a position of its own.
pub async fn applications_are_tracked_separately(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "one", 10).await;
    track(&recorder, "another", 3).await;
    assert_eq!(position(&recorder, "one").await, Some(10));
    assert_eq!(position(&recorder, "another").await, Some(3));
    assert!(processed(&recorder, "one", 10).await);
    assert!(!processed(&recorder, "another", 10).await);
}

/// Application names are compared byte by byte: case and spaces are significant.
pub async fn application_names_are_compared_exactly(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let names = ["Upstream", "upstream", "upstream ", " upstream"];
    for (name, id) in names.iter().zip(1..) {
        track(&recorder, name, id).await;
    }
    for (name, id) in names.iter().zip(1..) {
        assert_eq!(position(&recorder, name).await, Some(id), "{name:?}");
    }
}

/// An application name may be in any script and may contain special characters of SQL.
pub async fn application_names_are_unicode(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    let names = ["銀行", "🏦", "O'Neil \"; -- \\ %_", "u\u{308}ber", "\u{fc}ber"];
    for (name, id) in names.iter().zip(1..) {
        track(&recorder, name, id).await;
    }
    for (name, id) in names.iter().zip(1..) {
        assert_eq!(position(&recorder, name).await, Some(id), "{name:?}");
    }
}

/// The reserved name, which marks the layout of the table, has no position.
pub async fn the_reserved_name_has_no_position(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    assert_eq!(position(&recorder, Tracking::RESERVED_NAME).await, None);
}

/// A position is any `bigint`, including negative ones.
pub async fn positions_cover_the_bigint_range(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for id in [i64::MIN, -1, 0, 1 << 40, i64::MAX] {
        track(&recorder, "counted", id).await;
        assert_eq!(position(&recorder, "counted").await, Some(id));
        track_refused(&recorder, "counted", id).await;
        track_refused(&recorder, "counted", i64::MIN).await;
    }
}

/// A position is accepted if the recorded one is the expected one (0 if there is none); gaps are allowed.
pub async fn a_matching_expected_position_is_accepted(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    for (expected, first, last) in [(0, 1, 1), (1, 2, 5), (5, 9, 9), (9, 20, 30)] {
        let recorded = recorder.insert_tracking(after(expected, first, last)).await;
        recorded.expect("the expected position is the recorded one");
        assert_eq!(position(&recorder, "upstream").await, Some(last));
    }
}

/// A position is refused with a conflict if another instance has advanced the recorded one beyond the
/// expected one, even if none of its notifications is processed. It is accepted when it expects the recorded
/// one.
pub async fn an_expected_position_behind_the_recorded_one_is_refused(
    fixture: &impl Fixture<Recorder: TrackingRecorder>,
) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    for (expected, first, last) in [(0, 8, 8), (5, 9, 12), (6, 8, 8), (6, 7, 8)] {
        let refused = recorder.insert_tracking(after(expected, first, last)).await;
        let error = refused.expect_err("another position is recorded");
        let application_name = "upstream".to_owned();
        let conflict = Conflict::Tracking { application_name, notification_id: first };
        assert_eq!((error.kind(), error.conflict()), (ErrorKind::Integrity, Some(&conflict)), "{error}");
        assert_eq!(position(&recorder, "upstream").await, Some(7));
    }
    recorder.insert_tracking(after(7, 8, 12)).await.expect("the expected position is the recorded one");
}

/// A position is refused with an error of kind `RolledBack` if the recorded one is before the expected one:
/// an acknowledged position was lost. Nothing changes.
pub async fn an_expected_position_ahead_of_the_recorded_one_is_refused(
    fixture: &impl Fixture<Recorder: TrackingRecorder>,
) {
    let recorder = fixture.open().await;
    for recorded in [None, Some(3), Some(9)] {
        if let Some(recorded) = recorded {
            track(&recorder, "upstream", recorded).await;
        }
        for (first, last) in [(11, 11), (12, 20)] {
            let refused = recorder.insert_tracking(after(10, first, last)).await;
            let error = refused.expect_err("an earlier position is recorded");
            assert_eq!((error.kind(), error.conflict()), (ErrorKind::RolledBack, None), "{error}");
            assert!(!error.is_transient(), "{error}");
            assert_eq!(position(&recorder, "upstream").await, recorded);
        }
    }
}

/// If several consumers record the same position concurrently, exactly one succeeds.
pub async fn one_of_several_consumers_records_a_position(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    const CONSUMERS: usize = 6;
    const POSITIONS: i64 = 10;
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let barrier = Arc::new(Barrier::new(CONSUMERS));
    let consumers: Vec<_> = (0..CONSUMERS)
        .map(|consumer| {
            let recorder = Arc::clone(&recorders[consumer % 2]);
            tokio::spawn(race(recorder, Arc::clone(&barrier), POSITIONS))
        })
        .collect();
    let mut winners = vec![0; POSITIONS as usize];
    for consumer in consumers {
        for position in consumer.await.expect("a consumer should finish") {
            winners[position as usize] += 1;
        }
    }
    assert_eq!(winners, vec![1; POSITIONS as usize]);
}

/// Returns the positions that this consumer recorded.
async fn race<R: TrackingRecorder>(recorder: Arc<R>, barrier: Arc<Barrier>, positions: i64) -> Vec<i64> {
    let recorder: &R = &recorder;
    let mut won = Vec::new();
    for position in 0..positions {
        barrier.wait().await;
        match recorder.insert_tracking(tracking("upstream", position)).await {
            Ok(()) => won.push(position),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{error}"),
        }
    }
    won
}

/// If consumers record positions concurrently and in any order, the position never decreases, and the last
/// one is the greatest that was recorded.
pub async fn positions_never_decrease(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let barrier = Arc::new(Barrier::new(5));
    let consumers: Vec<_> = (0..4)
        .map(|consumer| {
            let (recorder, barrier) = (Arc::clone(&recorders[consumer % 2]), Arc::clone(&barrier));
            tokio::spawn(race_in_disorder(recorder, barrier, consumer as i64))
        })
        .collect();
    barrier.wait().await;
    let mut before = None;
    while !consumers.iter().all(JoinHandle::is_finished) {
        let now = position(&*recorders[0], "racing").await;
        assert!(now >= before, "the position went back from {before:?} to {now:?}");
        before = now;
        yield_now().await;
    }
    let mut greatest = None;
    for consumer in consumers {
        greatest = greatest.max(consumer.await.expect("a consumer should finish"));
    }
    assert_eq!(position(&*recorders[0], "racing").await, greatest);
    assert_eq!(position(&*recorders[1], "racing").await, greatest);
}

/// Returns the greatest position that this consumer recorded; it also tries those next to others' positions.
async fn race_in_disorder<R: TrackingRecorder>(
    recorder: Arc<R>,
    barrier: Arc<Barrier>,
    consumer: i64,
) -> Option<i64> {
    let recorder: &R = &recorder;
    barrier.wait().await;
    let mut greatest = None;
    for step in 0..12 {
        let position = 20 + 10 * step + (consumer + 3 * step) % 4 - 12 * (step % 2);
        match recorder.insert_tracking(tracking("racing", position)).await {
            Ok(()) => greatest = greatest.max(Some(position)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Integrity, "{error}"),
        }
    }
    greatest
}

/// Consumers of different applications record the same positions concurrently, and none is refused.
pub async fn applications_do_not_block_each_other(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorders = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let barrier = Arc::new(Barrier::new(4));
    let consumers: Vec<_> = (0..4)
        .map(|consumer| {
            let (recorder, barrier) = (Arc::clone(&recorders[consumer % 2]), Arc::clone(&barrier));
            tokio::spawn(async move {
                let recorder: &_ = &*recorder;
                for position in 1..=8 {
                    barrier.wait().await;
                    track(recorder, &format!("concurrent {consumer}"), position).await;
                }
            })
        })
        .collect();
    for consumer in consumers {
        consumer.await.expect("a consumer should finish");
    }
    for consumer in 0..4 {
        assert_eq!(position(&*recorders[0], &format!("concurrent {consumer}")).await, Some(8));
    }
}

/// After `close()`, reading and recording positions fails with an interface error.
pub async fn tracking_fails_after_close(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 1).await;
    recorder.close().await.expect("closing should succeed");
    assert_closed(recorder.insert_tracking(tracking("upstream", 2)).await, "insert_tracking");
    assert_closed(recorder.max_tracking_id("upstream").await, "max_tracking_id");
    assert_closed(recorder.has_tracking_id("upstream", 1).await, "has_tracking_id");
}

/// Positions recorded before `close()` are found when the datastore is opened again.
pub async fn positions_persist_after_close(fixture: &impl Fixture<Recorder: TrackingRecorder>) {
    let recorder = fixture.open().await;
    track(&recorder, "upstream", 7).await;
    recorder.close().await.expect("closing should succeed");
    drop(recorder);

    let reopened = fixture.open().await;
    assert_eq!(position(&reopened, "upstream").await, Some(7));
    track_refused(&reopened, "upstream", 5).await;
}

/// Returns tracking of the notifications `first` to `last` that expects this position.
fn after(expected: i64, first: i64, last: i64) -> Tracking {
    let tracking = Tracking::spanning("upstream", first, last).and_then(|tracking| tracking.after(expected));
    tracking.expect("it is one")
}

async fn track(recorder: &impl TrackingRecorder, application_name: &str, notification_id: i64) {
    let recorded = recorder.insert_tracking(tracking(application_name, notification_id)).await;
    recorded.expect("recording a greater position should succeed");
}

async fn track_refused(
    recorder: &impl TrackingRecorder,
    application_name: &str,
    notification_id: i64,
) -> PersistenceError {
    let refused = recorder.insert_tracking(tracking(application_name, notification_id)).await;
    let error = refused.expect_err("recording a position that is not greater should fail");
    assert_eq!(error.kind(), ErrorKind::Integrity, "a position that is not greater: {error}");
    error
}

async fn position(recorder: &impl TrackingRecorder, application_name: &str) -> Option<i64> {
    recorder.max_tracking_id(application_name).await.expect("reading a position should succeed")
}

async fn processed(recorder: &impl TrackingRecorder, application_name: &str, notification_id: i64) -> bool {
    let processed = recorder.has_tracking_id(application_name, notification_id).await;
    processed.expect("reading a position should succeed")
}

//! The tests that each datastore passes.

use std::sync::Arc;

use es_core::{
    ErrorKind, Segment, SegmentChange, SegmentRecorder, SegmentRecorderExt, Segments, Tracking,
    TrackingRecorder, TrackingRecorderExt,
};
use es_popo::PopoProcessRecorder;
use es_process::{HandlerConsumer, PartitionedProcessor, Processor};

use crate::support::{
    Downstream, Effects, Gate, LONG_LEASE, NAME, TOO_LONG, append, bank, check_all, effect, effects_in,
    segments, worker,
};

async fn change(recorder: &impl SegmentRecorder, change: SegmentChange) -> Segments {
    recorder.change_segments(NAME, change).await.unwrap()
}

/// Ends the lease of the first segment's worker, which does not notice.
async fn end_first_lease(recorder: &impl SegmentRecorder) {
    let worker = recorder.segments(NAME).await.unwrap().segments[0].owner.clone().unwrap();
    change(recorder, SegmentChange::Leave { worker }).await;
}

fn renew(worker: &str) -> SegmentChange {
    SegmentChange::Renew { worker: worker.to_owned(), lease: LONG_LEASE }
}

fn claim(worker: &str, first_hash: i64) -> SegmentChange {
    SegmentChange::Claim { worker: worker.to_owned(), lease: LONG_LEASE, first_hash }
}

fn release(worker: &str, first_hash: i64) -> SegmentChange {
    SegmentChange::Release { worker: worker.to_owned(), first_hash }
}

/// The ranges, epochs, owners and positions of segments.
fn facts(segments: &Segments) -> Vec<(i64, i64, i64, Option<String>, i64)> {
    let fact = |segment: &Segment| {
        let Segment { first_hash, last_hash, epoch, owner, position, .. } = segment.clone();
        (first_hash, last_hash, epoch, owner, position)
    };
    segments.segments.iter().map(fact).collect()
}

/// Each datastore performs a change as the one in memory does.
pub(crate) async fn changes_follow_the_rules<R: Downstream>(recorder: R) {
    let model = PopoProcessRecorder::new();
    assert_eq!(recorder.segments(NAME).await.unwrap().segments, []);
    let mut random = fastrand::Rng::with_seed(1);
    let mut changes = vec![SegmentChange::Create(segments(3)), renew("a"), renew("b")];
    for step in 0..150 {
        let recorded = model.segments(NAME).await.unwrap().segments;
        let any = random.choice(&recorded).map_or(0, |segment| segment.first_hash);
        let worker = *random.choice(&["a", "b", "c"]).unwrap();
        changes.push(match random.u8(0..9) {
            0 => renew(worker),
            1 | 2 => claim(worker, any),
            3 | 4 => release(worker, any),
            5 => SegmentChange::Leave { worker: worker.to_owned() },
            6 => SegmentChange::Split { first_hash: any },
            7 => SegmentChange::Merge { first_hash: any },
            _ => SegmentChange::Create(segments(9)),
        });
        for change in changes.drain(..) {
            let wanted = model.change_segments(NAME, change.clone()).await;
            let done = recorder.change_segments(NAME, change.clone()).await;
            assert_eq!(wanted.is_ok(), done.is_ok(), "{change:?}: {wanted:?} and {done:?}");
        }
        let (wanted, found) = (model.segments(NAME).await.unwrap(), recorder.segments(NAME).await.unwrap());
        assert_eq!(facts(&wanted), facts(&found), "after step {step}");
        let names = |segments: &Segments| {
            let mut names: Vec<_> = segments.workers.iter().map(|worker| worker.name.clone()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&wanted), names(&found), "after step {step}");
        // Some positions move.
        for segment in &wanted.segments {
            if random.u8(0..4) > 0 {
                continue;
            }
            let position = match segment.position {
                Segment::UNSTARTED => random.i64(0..3),
                recorded => recorded + random.i64(1..3),
            };
            let tracking = || {
                Tracking::new(segment.tracking_name(NAME), position).unwrap().after(segment.position).unwrap()
            };
            model.insert_tracking(tracking()).await.unwrap();
            recorder.insert_tracking(tracking()).await.unwrap();
        }
    }
}

/// A worker that was paused beyond its lease commits when another one has its segment.
pub(crate) async fn a_commit_of_an_earlier_epoch_is_refused<R: Downstream>(recorder: R) {
    let old = taken_over_at(&recorder, Some(7)).await;
    let refused = recorder.insert_events_with_tracking(vec![an_effect()], old.after(7).unwrap()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::RolledBack);
    assert_eq!(effects_in(&recorder).await, []);
    assert_eq!(recorder.segments(NAME).await.unwrap().segments[0].position, 7);
}

/// A missing record counts as position 0, and the first commit of a consumer requires none: that of an
/// earlier owner would succeed.
pub(crate) async fn the_first_commit_of_an_earlier_epoch_is_refused<R: Downstream>(recorder: R) {
    let old = taken_over_at(&recorder, None).await.after(Segment::UNSTARTED).unwrap();
    let refused = recorder.insert_events_with_tracking(vec![an_effect()], old).await;
    assert!(refused.unwrap_err().is_conflict());
    assert_eq!(effects_in(&recorder).await, []);
}

/// Returns the tracking record of a worker whose segment was taken over at a position.
async fn taken_over_at<R: Downstream>(recorder: &R, position: Option<i64>) -> Tracking {
    change(recorder, SegmentChange::Create(segments(1))).await;
    change(recorder, renew("a")).await;
    change(recorder, renew("b")).await;
    let name = change(recorder, claim("a", 0)).await.segments[0].tracking_name(NAME);
    if let Some(position) = position {
        let tracking = Tracking::new(&name, position).unwrap().after(Segment::UNSTARTED).unwrap();
        recorder.insert_tracking(tracking).await.unwrap();
    }
    // Its lease is not over.
    assert_eq!(change(recorder, claim("b", 0)).await.segments[0].owner.as_deref(), Some("a"));
    change(recorder, release("a", 0)).await;
    assert_eq!(change(recorder, claim("b", 0)).await.segments[0].owner.as_deref(), Some("b"));
    Tracking::new(name, 8).unwrap()
}

fn an_effect() -> es_core::StoredEvent {
    effect(&es_core::Notification { id: 8, event: crate::support::event(1, 8) })
}

pub(crate) async fn workers_that_join_and_leave_process_each_notification_once<R: Downstream>(recorder: R) {
    let bank = bank(20, 3).await;
    let effects = Effects::default();
    let mut first = worker(&bank, &recorder, &effects).spawn().unwrap();
    append(&bank, 20, 4..=6).await;
    let mut second = worker(&bank, &recorder, &effects).spawn().unwrap();
    let mut third = worker(&bank, &recorder, &effects).spawn().unwrap();
    append(&bank, 20, 7..=9).await;
    // Until the segments are shared out.
    let shares = async {
        loop {
            let recorded = recorder.segments(NAME).await.unwrap();
            let of = |worker: &es_core::SegmentWorker| {
                let owned = recorded.segments.iter().filter(|s| s.owner.as_ref() == Some(&worker.name));
                owned.count()
            };
            let mut shares: Vec<_> = recorded.workers.iter().map(of).collect();
            shares.sort_unstable();
            if shares == [2, 3, 3] {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TOO_LONG, shares).await.unwrap();
    append(&bank, 20, 10..=12).await;
    first.stop();
    first.join().await.unwrap();
    append(&bank, 20, 13..=15).await;
    let end = 20 * 15;
    recorder.wait_for_segments(NAME, end, TOO_LONG).await.unwrap();
    let lags = recorder.segment_lags(NAME, &bank).await.unwrap();
    assert_eq!(lags.iter().map(|(_, lag)| lag.lag()).collect::<Vec<_>>(), [0; 8]);
    assert_eq!(recorder.segments(NAME).await.unwrap().position(), end);
    second.stop();
    third.stop();
    second.join().await.unwrap();
    third.join().await.unwrap();
    check_all(&bank, &recorder).await;
    let recorded = recorder.segments(NAME).await.unwrap();
    assert!(recorded.workers.is_empty() && recorded.segments.iter().all(|segment| segment.owner.is_none()));
}

/// The other worker claims the segment while the first one is about to commit.
pub(crate) async fn a_worker_that_lost_its_segment_between_handling_and_commit_records_nothing<
    R: Downstream,
>(
    recorder: R,
) {
    let bank = bank(4, 2).await;
    let gate = Gate::closed();
    let gated = Effects { gate: Some(gate.clone()) };
    let old = worker(&bank, &recorder, &gated).segments(segments(1)).lease(LONG_LEASE);
    let mut old = old.spawn().unwrap();
    gate.arrived(1).await;
    end_first_lease(&recorder).await;
    let mut new = worker(&bank, &recorder, &Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 8, TOO_LONG).await.unwrap();
    gate.open();
    old.stop();
    old.join().await.unwrap();
    append(&bank, 4, 3..=3).await;
    recorder.wait_for_segments(NAME, 12, TOO_LONG).await.unwrap();
    new.stop();
    new.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

/// In commanded (its issue 556), a handler that crashed was started again after the event that it had not
/// handled: the position was acknowledged apart from the effects. Here the worker is dropped when its
/// handlers have run, and before their effects are committed.
pub(crate) async fn an_event_is_not_skipped_after_a_crash<R: Downstream>(recorder: R) {
    let bank = bank(6, 2).await;
    let gate = Gate::closed();
    let mut crashing = worker(&bank, &recorder, &Effects { gate: Some(gate.clone()) });
    let crash = async {
        gate.arrived(1).await;
        gate.permits.add_permits(3);
        gate.arrived(2).await;
    };
    tokio::select! {
        ended = crashing.run() => panic!("{ended:?}"),
        () = crash => {}
    }
    drop(crashing);
    let mut next = worker(&bank, &recorder, &Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 12, TOO_LONG).await.unwrap();
    next.stop();
    next.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

/// In KurrentDB (its issues 5497 and 5615), the checkpoint of a persistent subscription passed events that
/// were still being processed, when later ones were acknowledged or parked before them. They were lost at the
/// next start. Here all segments but one go on, and the overall position remains before the event that is
/// being processed.
pub(crate) async fn a_position_does_not_pass_an_unprocessed_event<R: Downstream>(recorder: R) {
    let bank = bank(10, 1).await;
    let log = es_core::ApplicationRecorder::select_notifications(
        &bank,
        es_core::NotificationSelection::new(usize::MAX),
    );
    let log = log.await.unwrap();
    let blocked = log[0].event.originator_id;
    let hash = es_process::key_hash(blocked.as_bytes());
    let gate = Gate::closed();
    let (gated, free) = (Effects { gate: Some(gate.clone()) }, Effects::default());
    let (leases, consumers) = (recorder.clone(), recorder.clone());
    let upstream = bank.clone();
    let mut running =
        es_process::PartitionedProcessor::new(NAME, upstream, leases, move |segment: Segment| {
            let effects = if segment.contains(hash) { gated.clone() } else { free.clone() };
            let consumer = HandlerConsumer::new(consumers.clone(), effects);
            async move { Ok(consumer) }
        })
        .segments(segments(8))
        .spawn()
        .unwrap();
    gate.arrived(1).await;
    append(&bank, 10, 2..=3).await;
    let others =
        log.iter().map(|notification| es_process::key_hash(notification.event.originator_id.as_bytes()));
    let own = recorder.segments(NAME).await.unwrap().of_hash(hash).unwrap().clone();
    for other in others.filter(|other| !own.contains(*other)) {
        recorder.wait_for_key(NAME, other, 30, TOO_LONG).await.unwrap();
    }
    let recorded = recorder.segments(NAME).await.unwrap();
    assert_eq!(recorded.position(), 0, "{recorded:?}");
    let late = recorder.wait_for_key(NAME, hash, 1, std::time::Duration::ZERO).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    gate.open();
    recorder.wait_for_segments(NAME, 30, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

pub(crate) async fn segments_are_split_and_merged_while_workers_run<R: Downstream>(recorder: R) {
    let bank = bank(10, 2).await;
    let effects = Effects::default();
    let mut running =
        [(); 2].map(|()| worker(&bank, &recorder, &effects).segments(segments(2)).spawn().unwrap());
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    let eventually = async |change: fn(i64) -> SegmentChange, index: usize| loop {
        let first_hash = recorder.segments(NAME).await.unwrap().segments[index].first_hash;
        match recorder.change_segments(NAME, change(first_hash)).await {
            Ok(changed) => return changed.segments.len(),
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(eventually(|first_hash| SegmentChange::Split { first_hash }, 0).await, 3);
    append(&bank, 10, 3..=4).await;
    assert_eq!(eventually(|first_hash| SegmentChange::Split { first_hash }, 2).await, 4);
    recorder.wait_for_segments(NAME, 40, TOO_LONG).await.unwrap();
    assert_eq!(eventually(|first_hash| SegmentChange::Merge { first_hash }, 1).await, 3);
    append(&bank, 10, 5..=6).await;
    recorder.wait_for_segments(NAME, 60, TOO_LONG).await.unwrap();
    for running in &mut running {
        running.stop();
        running.join().await.unwrap();
    }
    check_all(&bank, &recorder).await;
}

pub(crate) async fn a_consumer_that_was_not_partitioned_continues<R: Downstream>(recorder: R) {
    let bank = bank(5, 2).await;
    let effects = Effects::default();
    let mut before = Processor::new(NAME, bank.clone(), recorder.clone(), effects.clone()).spawn().unwrap();
    recorder.wait(NAME, 10, TOO_LONG).await.unwrap();
    before.stop();
    before.join().await.unwrap();
    let mut after = worker(&bank, &recorder, &effects).spawn().unwrap();
    append(&bank, 5, 3..=3).await;
    recorder.wait_for_segments(NAME, 15, TOO_LONG).await.unwrap();
    after.stop();
    after.join().await.unwrap();
    assert_eq!(recorder.max_tracking_id(NAME).await.unwrap(), None);
    check_all(&bank, &recorder).await;
}

/// An operator sets the position to 0, to repeat all notifications. Commits required the position of a
/// segment that has processed nothing, and the worker tried again without an end.
pub(crate) async fn a_recorded_position_may_be_zero<R: Downstream>(recorder: R) {
    let bank = bank(4, 2).await;
    recorder.insert_tracking(Tracking::new(NAME, 0).unwrap()).await.unwrap();
    let mut running = worker(&bank, &recorder, &Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 8, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

/// The worker is paused after it has claimed its segment, before it has read the position, until another one
/// has processed all.
pub(crate) async fn a_worker_that_is_paused_after_its_claim_records_nothing<R: Downstream>(recorder: R) {
    let bank = bank(4, 2).await;
    let gate = Gate::closed();
    let (consumers, at) = (recorder.clone(), Arc::clone(&gate));
    let old = PartitionedProcessor::new(NAME, bank.clone(), recorder.clone(), move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), Effects::default());
        let gate = Arc::clone(&at);
        async move {
            gate.waiting.add_permits(1);
            gate.permits.acquire().await.unwrap_err();
            Ok(consumer)
        }
    });
    let mut old = old.segments(segments(1)).lease(LONG_LEASE).spawn().unwrap();
    gate.arrived(1).await;
    end_first_lease(&recorder).await;
    let mut new = worker(&bank, &recorder, &Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 8, TOO_LONG).await.unwrap();
    gate.open();
    append(&bank, 4, 3..=3).await;
    recorder.wait_for_segments(NAME, 12, TOO_LONG).await.unwrap();
    for running in [&mut old, &mut new] {
        running.stop();
        running.join().await.unwrap();
    }
    check_all(&bank, &recorder).await;
}

/// Several operators split and merge at the same time, while workers run.
pub(crate) async fn changes_at_the_same_time_exclude_each_other<R: Downstream>(recorder: R) {
    const CHANGES: usize = 20;
    let bank = bank(10, 2).await;
    let effects = Effects::default();
    let mut running = [(); 2].map(|()| worker(&bank, &recorder, &effects).spawn().unwrap());
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    let operators = (0..3).map(|seed| {
        let recorder = recorder.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut changed = 0;
            while changed < CHANGES {
                let segments = recorder.segments(NAME).await.unwrap().segments;
                let first_hash = random.choice(&segments).unwrap().first_hash;
                let change = match segments.len() > 6 {
                    true => SegmentChange::Merge { first_hash },
                    false => SegmentChange::Split { first_hash },
                };
                match recorder.change_segments(NAME, change).await {
                    Ok(_) => changed += 1,
                    // Another operator was faster, or the segment is the last one.
                    Err(error) => {
                        assert!(error.is_transient() || error.kind() == ErrorKind::Programming, "{error}");
                    }
                }
            }
        })
    });
    let operators: Vec<_> = operators.collect();
    append(&bank, 10, 3..=6).await;
    for operator in operators {
        operator.await.unwrap();
    }
    recorder.wait_for_segments(NAME, 60, TOO_LONG).await.unwrap();
    for running in &mut running {
        running.stop();
        running.join().await.unwrap();
    }
    check_all(&bank, &recorder).await;
    let segments = recorder.segments(NAME).await.unwrap().segments;
    assert_eq!((segments[0].first_hash, segments[segments.len() - 1].last_hash), (0, i64::MAX));
    assert!(segments.windows(2).all(|pair| pair[0].last_hash + 1 == pair[1].first_hash), "{segments:?}");
}

/// A consumer of the reserved name would move the row that marks the layout of the table.
pub(crate) async fn consumers_may_have_any_valid_name<R: Downstream>(recorder: R) {
    for name in ["a/b", "ö \"'%_\\", "x/0000000000000000/1", " ", "$1"] {
        let change = async |change| recorder.change_segments(name, change).await.unwrap();
        change(SegmentChange::Create(segments(2))).await;
        change(renew("a")).await;
        let claimed = change(claim("a", 0)).await;
        let tracking = Tracking::new(claimed.segments[0].tracking_name(name), 7).unwrap();
        recorder.insert_tracking(tracking.after(Segment::UNSTARTED).unwrap()).await.unwrap();
        let segments = recorder.segments(name).await.unwrap().segments;
        let position = |segment: &Segment| segment.position;
        assert_eq!(segments.iter().map(position).collect::<Vec<_>>(), [7, Segment::UNSTARTED], "{name:?}");
    }
    for name in ["", Tracking::RESERVED_NAME, "a\0b"] {
        let create = SegmentChange::Create(segments(2));
        let refused = recorder.change_segments(name, create).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Data, "{name:?}");
    }
}

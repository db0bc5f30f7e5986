//! The segments of a worker share their reads of the log.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, Recorder, Segment, SegmentChange, SegmentRecorder, SegmentRecorderExt, Signal,
    StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
use es_process::{HandlerConsumer, PartitionedProcessor, key_hash};

use crate::support::{
    Effects, Gate, LONG_LEASE, NAME, SHORT_LEASE, TOO_LONG, append, bank, check_all, effects_in, segments,
};

const SEGMENTS: u16 = 8;

/// A log that counts the reads of its pages. Each takes a few turns of the runtime, as one of a database
/// does.
#[derive(Clone, Debug)]
struct Counting(PopoApplicationRecorder, Arc<AtomicUsize>);

impl Counting {
    fn new(bank: &PopoApplicationRecorder) -> Self {
        Self(bank.clone(), Arc::default())
    }

    fn reads(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

impl Recorder for Counting {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.0.close().await
    }
}

impl AggregateRecorder for Counting {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.0.insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.select_events(originator_id, range).await
    }
}

impl ApplicationRecorder for Counting {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.0.select_notifications(selection).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.0.max_notification_id().await
    }

    fn commit_signal(&self) -> &Signal {
        self.0.commit_signal()
    }
}

/// A worker whose handlers for one segment wait at a gate, if there is one.
fn worker(
    log: &Counting,
    recorder: &PopoProcessRecorder,
    gated: Option<(i64, Arc<Gate>)>,
) -> PartitionedProcessor<Counting, PopoProcessRecorder, HandlerConsumer<PopoProcessRecorder, Effects>> {
    let consumers = recorder.clone();
    PartitionedProcessor::new(NAME, log.clone(), recorder.clone(), move |segment: Segment| {
        let gate = gated.as_ref().filter(|(hash, _)| segment.contains(*hash));
        let effects = Effects { gate: gate.map(|(_, gate)| Arc::clone(gate)) };
        let consumer = HandlerConsumer::new(consumers.clone(), effects);
        async move { Ok(consumer) }
    })
    .segments(segments(SEGMENTS))
    .lease(LONG_LEASE)
    .processors(|processor| processor.page_size(100.try_into().unwrap()))
}

#[tokio::test]
async fn segments_at_the_end_of_the_log_read_each_page_once() {
    let (bank, recorder) = (bank(10, 1).await, PopoProcessRecorder::new());
    let log = Counting::new(&bank);
    let mut running = worker(&log, &recorder, None).spawn().unwrap();
    recorder.wait_for_segments(NAME, 10, TOO_LONG).await.unwrap();
    let before = log.reads();
    for version in 2..=41 {
        append(&bank, 10, version..=version).await;
        recorder.wait_for_segments(NAME, version * 10, TOO_LONG).await.unwrap();
    }
    let reads = log.reads() - before;
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
    // Each would read for itself: 320. A few more than 40 are those of the poll interval.
    assert!((40..=50).contains(&reads), "{reads} reads of 40 pages");
}

/// As after a rebalance, when the segments of several workers become those of one.
#[tokio::test]
async fn segments_at_different_positions_meet() {
    let (bank, recorder) = (bank(100, 40).await, PopoProcessRecorder::new());
    let create = SegmentChange::Create(segments(SEGMENTS));
    let created = recorder.change_segments(NAME, create).await.unwrap();
    let starts = [0, 150, 150, 170, 1_234, 1_234, 2_999, 4_000];
    for (segment, start) in created.segments.iter().zip(starts) {
        if start > 0 {
            let tracking = Tracking::new(segment.tracking_name(NAME), start).unwrap();
            recorder.insert_tracking(tracking.after(Segment::UNSTARTED).unwrap()).await.unwrap();
        }
    }
    let log = Counting::new(&bank);
    let mut running = worker(&log, &recorder, None).spawn().unwrap();
    recorder.wait_for_segments(NAME, 4_000, TOO_LONG).await.unwrap();
    append(&bank, 100, 41..=41).await;
    recorder.wait_for_segments(NAME, 4_100, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    let mut expected = Vec::new();
    for Notification { id, event } in
        bank.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap()
    {
        let hash = key_hash(event.originator_id.as_bytes());
        let own = created.segments.iter().position(|segment| segment.contains(hash)).unwrap();
        if id > starts[own] {
            expected.push(id);
        }
    }
    let mut effects = effects_in(&recorder).await;
    effects.sort_unstable();
    assert_eq!(effects, expected);
    // Each would read for itself: 237 pages.
    let reads = log.reads();
    assert!(reads < 120, "{reads} reads of 41 pages");
}

/// A segment that falls behind by more than is kept reads for itself, and the others do not wait for it.
#[tokio::test]
async fn a_slow_segment_delays_no_other_one() {
    let (bank, recorder) = (bank(50, 1).await, PopoProcessRecorder::new());
    let log = Counting::new(&bank);
    let gate = Gate::closed();
    let hash = key_hash(Uuid::from_u128(1).as_bytes());
    let mut running = worker(&log, &recorder, Some((hash, Arc::clone(&gate)))).spawn().unwrap();
    gate.arrived(1).await;
    for version in 2..=30 {
        append(&bank, 50, version..=version).await;
        for segment in recorder.segments(NAME).await.unwrap().segments {
            if !segment.contains(hash) {
                recorder.wait_for_key(NAME, segment.first_hash, version * 50, TOO_LONG).await.unwrap();
            }
        }
    }
    gate.open();
    recorder.wait_for_segments(NAME, 30 * 50, TOO_LONG).await.unwrap();
    let before = log.reads();
    append(&bank, 50, 31..=31).await;
    recorder.wait_for_segments(NAME, 31 * 50, TOO_LONG).await.unwrap();
    let reads = log.reads() - before;
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
    assert!(reads <= 2, "{reads} reads of a page, after the segment has caught up");
}

/// A segment that waits for the next page on behalf of the others loses its lease. Another one reads then.
#[tokio::test]
async fn the_segment_that_reads_may_be_lost() {
    let (bank, recorder) = (bank(10, 1).await, PopoProcessRecorder::new());
    let log = Counting::new(&bank);
    let mut running = worker(&log, &recorder, None).lease(SHORT_LEASE).spawn().unwrap();
    for kept in 0..4 {
        recorder.wait_for_segments(NAME, (kept + 1) * 10, TOO_LONG).await.unwrap();
        // As if others had claimed all segments but one for a while.
        let recorded = recorder.segments(NAME).await.unwrap().segments;
        for (_, segment) in (0..).zip(&recorded).filter(|(index, _)| *index != kept) {
            let (worker, first_hash) = (segment.owner.clone().unwrap(), segment.first_hash);
            recorder.change_segments(NAME, SegmentChange::Release { worker, first_hash }).await.unwrap();
        }
        let is_claimed_again = async || {
            let now = recorder.segments(NAME).await.unwrap().segments;
            let epochs: i64 = now.iter().map(|segment| segment.epoch).sum();
            epochs == recorded.iter().map(|segment| segment.epoch).sum::<i64>() + i64::from(SEGMENTS) - 1
        };
        let again = async {
            while !is_claimed_again().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(TOO_LONG, again).await.unwrap();
        append(&bank, 10, kept + 2..=kept + 2).await;
    }
    recorder.wait_for_segments(NAME, 50, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

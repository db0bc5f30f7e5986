//! Behaviour that does not depend on the datastore.

use std::{
    fmt,
    future::ready,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_core::{
    BoxFuture, HandlerError, Notification, PersistenceError, Recorder, SegmentChange, SegmentRecorder,
    SegmentRecorderExt, Segments, Signal, StoredEvent, Tracking, TrackingRecorder,
};
use es_popo::PopoProcessRecorder;
use es_process::{Handler, HandlerConsumer, PartitionedProcessor, ProcessorError, RetryPolicy};
use tokio::sync::Semaphore;

use crate::support::{
    Effects, Gate, LONG_LEASE, NAME, SHORT_LEASE, TOO_LONG, bank, check_all, effect, effects_in, segments,
    worker,
};

/// Segments whose changes are made after a hook, or fail with its error.
#[derive(Clone)]
struct Hooked(PopoProcessRecorder, Hook);

type Hook = Arc<dyn Fn(&SegmentChange) -> BoxFuture<'static, ()> + Send + Sync>;

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hooked").field(&self.0).finish_non_exhaustive()
    }
}

impl Recorder for Hooked {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.0.close().await
    }
}

impl TrackingRecorder for Hooked {
    async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
        self.0.insert_tracking(tracking).await
    }

    async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.0.max_tracking_id(application_name).await
    }

    fn tracking_signal(&self) -> &Signal {
        self.0.tracking_signal()
    }
}

impl SegmentRecorder for Hooked {
    async fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
        self.0.segments(consumer_name).await
    }

    async fn change_segments(
        &self,
        consumer_name: &str,
        change: SegmentChange,
    ) -> Result<Segments, PersistenceError> {
        (self.1)(&change).await?;
        self.0.change_segments(consumer_name, change).await
    }
}

/// No other worker has claimed the segment: the clock of the worker is what stops it.
#[tokio::test]
async fn a_worker_begins_no_commit_after_its_lease() {
    let (bank, recorder, gate) = (bank(1, 1).await, PopoProcessRecorder::new(), Gate::closed());
    let is_cut_off = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_cut_off);
    let cut_off = move |_: &SegmentChange| -> BoxFuture<'static, ()> {
        let is_cut_off = seen.load(Ordering::SeqCst);
        let error = || PersistenceError::operational("cut off").transient();
        Box::pin(ready(if is_cut_off { Err(error()) } else { Ok(()) }))
    };
    let leases = Hooked(recorder.clone(), Arc::new(cut_off));
    let (consumers, effects) = (recorder.clone(), Effects { gate: Some(gate.clone()) });
    let worker = PartitionedProcessor::new(NAME, bank.clone(), leases, move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), effects.clone());
        async move { Ok(consumer) }
    });
    let mut running = worker.segments(segments(1)).lease(SHORT_LEASE).spawn().unwrap();
    gate.arrived(1).await;
    is_cut_off.store(true, Ordering::SeqCst);
    let renew = SegmentChange::Renew { worker: "other".to_owned(), lease: LONG_LEASE };
    // Until it is over by the clock of the datastore. Its end by that of the worker is earlier.
    while recorder.change_segments(NAME, renew.clone()).await.unwrap().workers.len() > 1 {
        tokio::task::yield_now().await;
    }
    gate.open();
    running.stop();
    running.join().await.unwrap();
    assert_eq!(effects_in(&recorder).await, []);
}

/// Fails for the notifications of one version, and parks them.
#[derive(Clone, Default)]
struct Failing {
    calls: Arc<AtomicUsize>,
    parks: bool,
}

impl Handler for Failing {
    type Error = HandlerError;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, HandlerError> {
        if notification.event.originator_version == 2 {
            self.calls.fetch_add(1, Ordering::SeqCst);
            return Err("no".into());
        }
        Ok(vec![effect(&notification)])
    }

    async fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> Result<Vec<StoredEvent>, HandlerError> {
        if self.parks { Ok(vec![effect(&notification)]) } else { Err(failure) }
    }
}

fn failing_worker(
    bank: &es_popo::PopoApplicationRecorder,
    recorder: &PopoProcessRecorder,
    failing: &Failing,
) -> PartitionedProcessor<
    es_popo::PopoApplicationRecorder,
    PopoProcessRecorder,
    HandlerConsumer<PopoProcessRecorder, Failing>,
> {
    let (consumers, failing) = (recorder.clone(), failing.clone());
    PartitionedProcessor::new(NAME, bank.clone(), recorder.clone(), move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), failing.clone());
        async move { Ok(consumer) }
    })
    .segments(segments(4))
    .concurrency(NonZeroUsize::MIN)
}

#[tokio::test]
async fn notifications_are_retried_and_parked_in_each_segment() {
    let (bank, recorder) = (bank(10, 3).await, PopoProcessRecorder::new());
    let failing = Failing { parks: true, ..Failing::default() };
    let policy = RetryPolicy { first_pause: Duration::from_millis(1), ..RetryPolicy::max_retries(2) };
    let worker =
        failing_worker(&bank, &recorder, &failing).processors(move |processor| processor.retries(policy));
    let mut running = worker.spawn().unwrap();
    recorder.wait_for_segments(NAME, 30, TOO_LONG).await.unwrap();
    assert_eq!(running.progress().processed(), 30);
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
    // Each of the ten is called three times, before it is parked.
    assert!(failing.calls.load(Ordering::SeqCst) >= 30);
}

#[tokio::test]
async fn a_failure_stops_the_worker_and_releases_its_segments() {
    let (bank, recorder) = (bank(1, 2).await, PopoProcessRecorder::new());
    let mut worker = failing_worker(&bank, &recorder, &Failing::default());
    let error = worker.run().await.unwrap_err();
    let ProcessorError::Handler { notification, .. } = error else { panic!("{error:?}") };
    assert_eq!(notification.id, 2);
    let recorded = recorder.segments(NAME).await.unwrap();
    assert!(recorded.workers.is_empty() && recorded.segments.iter().all(|segment| segment.owner.is_none()));
    assert_eq!(effects_in(&recorder).await, [1]);
}

/// With the key of a tenant, for example, that several aggregates have.
#[tokio::test]
async fn notifications_with_one_key_are_in_one_segment() {
    let (bank, recorder) = (bank(10, 2).await, PopoProcessRecorder::new());
    let mut running = worker(&bank, &recorder, &Effects::default()).key(|_| b"tenant").spawn().unwrap();
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    assert_eq!(effects_in(&recorder).await, (1..=20).collect::<Vec<_>>());
}

/// Its end would be beyond what clocks can express, and a worker that is killed would keep its segments
/// permanently.
#[tokio::test]
async fn a_lease_is_of_100_milliseconds_to_a_day() {
    for (lease, milliseconds) in [(Duration::MAX, 24 * 60 * 60 * 1_000), (Duration::ZERO, 100)] {
        let (bank, recorder) = (bank(1, 1).await, PopoProcessRecorder::new());
        let before = Segments::local_time();
        let mut running = worker(&bank, &recorder, &Effects::default()).lease(lease).spawn().unwrap();
        recorder.wait_for_segments(NAME, 1, TOO_LONG).await.unwrap();
        let recorded = recorder.segments(NAME).await.unwrap();
        let after = Segments::local_time();
        running.stop();
        running.join().await.unwrap();
        // A millisecond more, since times are rounded down.
        let expected = before + milliseconds + 1..=after + milliseconds + 1;
        assert!(expected.contains(&recorded.workers[0].expires_at), "{recorded:?}, {expected:?}");
    }
}

/// The consumers of all segments together take longer to make than a lease lasts, as projectors on a slow
/// database may. The lease ran out meanwhile, and the worker began again with all of them, without an end.
#[tokio::test]
async fn a_worker_renews_its_lease_while_consumers_are_made() {
    let (bank, recorder) = (bank(10, 2).await, PopoProcessRecorder::new());
    let consumers = recorder.clone();
    let worker = PartitionedProcessor::new(NAME, bank.clone(), recorder.clone(), move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), Effects::default());
        async move {
            tokio::time::sleep(SHORT_LEASE / 4).await;
            Ok(consumer)
        }
    });
    let mut running = worker.segments(segments(8)).lease(SHORT_LEASE).spawn().unwrap();
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

/// Without a lease, a batch that takes longer would not be committed.
#[tokio::test]
async fn a_stopped_worker_renews_its_lease_until_its_batches_are_committed() {
    let (bank, recorder, gate) = (bank(1, 1).await, PopoProcessRecorder::new(), Gate::closed());
    let renewals = Arc::new(Semaphore::new(0));
    let seen = Arc::clone(&renewals);
    let count = move |change: &SegmentChange| -> BoxFuture<'static, ()> {
        if matches!(change, SegmentChange::Renew { .. }) {
            seen.add_permits(1);
        }
        Box::pin(ready(Ok(())))
    };
    let (leases, consumers) = (Hooked(recorder.clone(), Arc::new(count)), recorder.clone());
    let effects = Effects { gate: Some(gate.clone()) };
    let worker = PartitionedProcessor::new(NAME, bank.clone(), leases, move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), effects.clone());
        async move { Ok(consumer) }
    });
    let mut running = worker.segments(segments(1)).lease(SHORT_LEASE).spawn().unwrap();
    gate.arrived(1).await;
    running.stop();
    let before = u32::try_from(renewals.available_permits()).unwrap();
    tokio::time::timeout(TOO_LONG, renewals.acquire_many(before + 2)).await.unwrap().unwrap().forget();
    gate.open();
    running.join().await.unwrap();
}

/// The lease of workers on a slow datastore.
const SLOW_LEASE: Duration = Duration::from_millis(1_200);

/// A datastore on which each change takes until the next renewal is due.
fn slow(recorder: &PopoProcessRecorder) -> Hooked {
    let take_long = |_: &SegmentChange| -> BoxFuture<'static, ()> {
        Box::pin(async {
            tokio::time::sleep(SLOW_LEASE / 3).await;
            Ok(())
        })
    };
    Hooked(recorder.clone(), Arc::new(take_long))
}

fn slow_worker<H: Handler<Error: Into<HandlerError>> + Clone + 'static>(
    bank: &es_popo::PopoApplicationRecorder,
    recorder: &PopoProcessRecorder,
    handler: H,
) -> PartitionedProcessor<es_popo::PopoApplicationRecorder, Hooked, HandlerConsumer<PopoProcessRecorder, H>> {
    let consumers = recorder.clone();
    PartitionedProcessor::new(NAME, bank.clone(), slow(recorder), move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), handler.clone());
        async move { Ok(consumer) }
    })
    .segments(segments(3))
    .lease(SLOW_LEASE)
}

/// The renewal left no time for claims, and the worker had no segments, without an end.
#[tokio::test]
async fn a_worker_on_a_slow_datastore_claims_segments() {
    let (bank, recorder) = (bank(10, 2).await, PopoProcessRecorder::new());
    let mut running = slow_worker(&bank, &recorder, Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

/// The ends of processors were noticed only in the time that the renewals left.
#[tokio::test]
async fn a_worker_on_a_slow_datastore_hands_over_segments() {
    let (bank, recorder) = (bank(10, 2).await, PopoProcessRecorder::new());
    let mut first = slow_worker(&bank, &recorder, Effects::default()).spawn().unwrap();
    recorder.wait_for_segments(NAME, 20, TOO_LONG).await.unwrap();
    let mut second = worker(&bank, &recorder, &Effects::default()).spawn().unwrap();
    let is_handed_over = async || {
        let recorded = recorder.segments(NAME).await.unwrap();
        let mut owners: Vec<_> = recorded.segments.iter().filter_map(|one| one.owner.clone()).collect();
        owners.dedup();
        owners.len() == 2
    };
    let handed_over = async {
        while !is_handed_over().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TOO_LONG, handed_over).await.unwrap();
    first.stop();
    first.join().await.unwrap();
    second.stop();
    second.join().await.unwrap();
    check_all(&bank, &recorder).await;
}

#[tokio::test]
async fn a_failure_stops_a_worker_on_a_slow_datastore() {
    let (bank, recorder) = (bank(1, 2).await, PopoProcessRecorder::new());
    let mut worker = slow_worker(&bank, &recorder, Failing::default());
    let ended = tokio::time::timeout(TOO_LONG, worker.run()).await.unwrap();
    assert!(matches!(ended, Err(ProcessorError::Handler { .. })), "{ended:?}");
}

//! The guarantees of a processor, through its public interface, on in-memory recorders: each
//! notification takes effect once, despite failures of the handler, the recorder and the processor.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    num::NonZeroUsize,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, ConsumerError, ErrorKind, EventRange, HandlerError,
    Notification, NotificationBatch, NotificationConsumer, NotificationSelection, PersistenceError,
    ProcessRecorder, Recorder, Signal, StoredEvent, Topic, Tracking, TrackingRecorder, TrackingRecorderExt,
    uuid::Uuid,
};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder, PopoProjection, PopoTrackingRecorder};
use es_process::{Handler, Processor, ProcessorError, RetryPolicy};
use futures_util::FutureExt;

const OPENED: Topic = Topic::from_static("bank:Account.Opened");
const CREDITED: Topic = Topic::from_static("bank:Account.Credited");
const NOTICED: Topic = Topic::from_static("audit:Noticed");

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

fn event(topic: Topic, originator: u128, originator_version: i64) -> StoredEvent {
    StoredEvent { originator_id: Uuid::from_u128(originator), originator_version, topic, state: Bytes::new() }
}

/// A bank whose log has this number of notifications, each of its own aggregate.
async fn bank(notifications: u128) -> PopoApplicationRecorder {
    let bank = PopoApplicationRecorder::new();
    credit(&bank, 1..=notifications).await;
    bank
}

async fn credit(bank: &PopoApplicationRecorder, originators: impl IntoIterator<Item = u128>) {
    let events = originators.into_iter().map(|originator| event(CREDITED, originator, 1)).collect();
    bank.insert_events(events).await.unwrap();
}

/// The event that the audit records for a notification, at an originator and version unique to it.
fn noticed(notification: &Notification) -> StoredEvent {
    StoredEvent { topic: NOTICED, ..notification.event.clone() }
}

async fn notice(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    Ok(vec![noticed(&notification)])
}

/// The ids that the audit has recorded, in order, read from the aggregates.
async fn audited(audit: &PopoProcessRecorder) -> Vec<u128> {
    let all = audit.select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap();
    all.iter().map(|notification| notification.event.originator_id.as_u128()).collect()
}

/// Runs a processor until the downstream has processed the notification.
async fn run_until<R, D>(processor: &mut Processor<R, D>, recorder: &impl TrackingRecorder, id: i64)
where
    R: ApplicationRecorder + Clone,
    D: NotificationConsumer,
{
    tokio::select! {
        result = processor.run() => panic!("the processor ended: {result:?}"),
        waited = recorder.wait("audit", id, TOO_LONG) => waited.unwrap(),
    }
}

#[tokio::test]
async fn catches_up_continues_live_and_ends_with_the_upstream() {
    let (bank, audit) = (bank(1_201).await, PopoProcessRecorder::new());
    let mut processor = Processor::new("audit", bank.clone(), audit.clone(), notice);
    let progress = processor.progress();
    let running = tokio::spawn(async move { processor.run().await });
    audit.wait("audit", 1_201, TOO_LONG).await.unwrap();
    credit(&bank, [2_000]).await;
    audit.wait("audit", 1_202, TOO_LONG).await.unwrap();
    bank.close().await.unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(audited(&audit).await, (1..=1_201).chain([2_000]).collect::<Vec<_>>());
    assert_eq!((progress.position(), progress.lag(), progress.processed()), (1_202, 0, 1_202));
    assert!(progress.rate() > 0.0);
}

#[tokio::test]
async fn continues_after_the_recorded_position() {
    let (bank, audit) = (bank(10).await, PopoProcessRecorder::new());
    audit.insert_tracking(Tracking::new("audit", 7).unwrap()).await.unwrap();
    let mut processor = Processor::new("audit", bank, audit.clone(), notice);
    run_until(&mut processor, &audit, 10).await;
    assert_eq!(audited(&audit).await, [8, 9, 10]);
}

#[tokio::test]
async fn commits_a_batch_at_a_time_and_one_at_a_time_live() {
    let (bank, tracking) = (bank(25).await, PopoTrackingRecorder::new());
    let batches = Arc::new(Mutex::new(Vec::new()));
    let downstream = Batches { recorder: tracking.clone(), batches: Arc::clone(&batches) };
    let mut processor = Processor::with_consumer("audit", bank.clone(), downstream)
        .batch_size(NonZeroUsize::new(10).unwrap());
    run_until(&mut processor, &tracking, 25).await;
    let running = tokio::spawn(async move { processor.run().await });
    for originator in [30, 31] {
        credit(&bank, [originator]).await;
        let id = bank.max_notification_id().await.unwrap().unwrap();
        tracking.wait("audit", id, TOO_LONG).await.unwrap();
    }
    assert_eq!(*batches.lock().unwrap(), [(10, 10), (10, 20), (5, 25), (1, 26), (1, 27)]);
    running.abort();
}

/// Records the number of notifications of each batch, and the position.
struct Batches {
    recorder: PopoTrackingRecorder,
    batches: Arc<Mutex<Vec<(usize, i64)>>>,
}

impl NotificationConsumer for Batches {
    type Recorder = PopoTrackingRecorder;

    fn recorder(&self) -> &PopoTrackingRecorder {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let handled = batch.notifications.len();
        self.recorder.insert_tracking(batch.tracking(handled)?).await?;
        self.batches.lock().unwrap().push((handled, batch.position));
        Ok(handled)
    }

    async fn park(&mut self, _: NotificationBatch<'_>, error: HandlerError) -> Result<(), ConsumerError> {
        Err(ConsumerError::Handler { index: 0, error })
    }
}

#[tokio::test]
async fn the_position_moves_past_other_topics() {
    let (bank, audit) = (PopoApplicationRecorder::new(), PopoProcessRecorder::new());
    let topics = [CREDITED, OPENED, CREDITED, CREDITED];
    let events = (1..).zip(topics).map(|(originator, topic)| event(topic, originator, 1)).collect();
    bank.insert_events(events).await.unwrap();
    let mut processor = Processor::new("audit", bank.clone(), audit.clone(), notice).topics([OPENED]);
    run_until(&mut processor, &audit, 4).await;
    assert_eq!(audited(&audit).await, [2]);
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(4));
    // No selected notification: only the position is recorded.
    credit(&bank, [5, 6]).await;
    run_until(&mut processor, &audit, 6).await;
    assert_eq!(audited(&audit).await, [2]);
}

#[tokio::test]
async fn a_handler_that_fails_stops_it_with_the_notification_named() {
    let (bank, audit) = (bank(5).await, PopoProcessRecorder::new());
    let mut processor = Processor::new("audit", bank, audit.clone(), async |notification: Notification| {
        if notification.id == 4 {
            Err(io::Error::other("no such account"))
        } else {
            Ok(vec![noticed(&notification)])
        }
    });
    let error = processor.run().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer \"audit\" could not handle notification 4 (event \"bank:Account.Credited\", version 1 of \
         originator 00000000-0000-0000-0000-000000000004)"
    );
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "no such account");
    assert_eq!(audited(&audit).await, [1, 2, 3]);
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(3));
}

/// Fails the configured number of times for the notification 2, and parks it with an event if configured.
struct Fragile {
    failures: u32,
    parks: bool,
    calls: Arc<AtomicUsize>,
}

impl Handler for Fragile {
    type Error = io::Error;

    async fn handle(&mut self, notification: Notification) -> Result<Vec<StoredEvent>, io::Error> {
        if notification.id != 2 {
            return Ok(vec![noticed(&notification)]);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.failures == 0 {
            return Ok(vec![noticed(&notification)]);
        }
        self.failures -= 1;
        Err(io::Error::other("not now"))
    }

    async fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> Result<Vec<StoredEvent>, HandlerError> {
        if !self.parks {
            return Err(failure);
        }
        let state = Bytes::from(failure.to_string());
        Ok(vec![StoredEvent { topic: Topic::from_static("audit:Parked"), state, ..notification.event }])
    }
}

fn quick_retries(max_retries: u32) -> RetryPolicy {
    RetryPolicy {
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
        ..RetryPolicy::max_retries(max_retries)
    }
}

#[tokio::test]
async fn a_failed_handler_is_retried_by_the_policy() {
    for (failures, retries, succeeds) in [(2, 2, true), (3, 2, false)] {
        let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
        let calls = Arc::new(AtomicUsize::new(0));
        let fragile = Fragile { failures, parks: false, calls: Arc::clone(&calls) };
        let mut processor =
            Processor::new("audit", bank, audit.clone(), fragile).retries(quick_retries(retries));
        if succeeds {
            run_until(&mut processor, &audit, 3).await;
            assert_eq!(audited(&audit).await, [1, 2, 3]);
        } else {
            assert!(matches!(processor.run().await, Err(ProcessorError::Handler { .. })));
            assert_eq!(audited(&audit).await, [1]);
        }
        assert_eq!(calls.load(Ordering::Relaxed), 3);
    }
}

#[tokio::test]
async fn a_failed_notification_is_parked_with_its_position() {
    let (bank, audit) = (bank(4).await, PopoProcessRecorder::new());
    let fragile = Fragile { failures: u32::MAX, parks: true, calls: Arc::default() };
    let mut processor = Processor::new("audit", bank, audit.clone(), fragile).retries(quick_retries(1));
    run_until(&mut processor, &audit, 4).await;
    assert_eq!(audited(&audit).await, [1, 2, 3, 4]);
    let parked = audit.select_events(Uuid::from_u128(2), EventRange::all()).await.unwrap();
    assert_eq!((parked[0].topic.as_str(), &*parked[0].state), ("audit:Parked", b"not now".as_slice()));
}

#[tokio::test]
async fn a_transient_error_of_the_handler_is_not_its_failure() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    let mut failures = 2;
    let handler = move |notification: Notification| {
        failures -= i32::from(failures > 0);
        let fails = failures > 0;
        async move {
            if fails {
                return Err(PersistenceError::operational("the server is restarting").transient());
            }
            Ok(vec![noticed(&notification)])
        }
    };
    let mut processor = Processor::new("audit", bank, audit.clone(), handler);
    run_until(&mut processor, &audit, 2).await;
    assert_eq!(audited(&audit).await, [1, 2]);
}

#[tokio::test]
async fn handlers_that_read_their_own_writes_get_earlier_events() {
    // Each notification adds an event to the one aggregate, after those that the recorder has.
    let (bank, audit) = (bank(20).await, PopoProcessRecorder::new());
    let reader = audit.clone();
    let handler = move |_: Notification| {
        let reader = reader.clone();
        async move {
            let seen = reader.select_events(Uuid::nil(), EventRange::all()).await?.len();
            Ok::<_, PersistenceError>(vec![event(NOTICED, 0, seen as i64 + 1)])
        }
    };
    let mut processor = Processor::new("audit", bank, audit.clone(), handler);
    run_until(&mut processor, &audit, 20).await;
    let versions = audit.select_events(Uuid::nil(), EventRange::all()).await.unwrap();
    assert_eq!(versions.len(), 20);
}

#[tokio::test]
async fn events_that_a_rival_recorded_are_read_at_the_next_call() {
    let (bank, audit) = (bank(1).await, PopoProcessRecorder::new());
    let reader = audit.clone();
    let handler = move |_: Notification| {
        let reader = reader.clone();
        async move {
            let seen = reader.select_events(Uuid::nil(), EventRange::all()).await?.len() as i64;
            if seen < 30 {
                // A rival commits first, more often than a handler that does not read is called.
                reader.insert_events(vec![event(OPENED, 0, seen + 1)]).await?;
            }
            Ok::<_, PersistenceError>(vec![event(NOTICED, 0, seen + 1)])
        }
    };
    let mut processor = Processor::new("audit", bank, audit.clone(), handler);
    run_until(&mut processor, &audit, 1).await;
    let topics: Vec<_> = audit.select_events(Uuid::nil(), EventRange::all()).await.unwrap();
    assert_eq!(topics.iter().filter(|event| event.topic == NOTICED).count(), 1);
}

#[tokio::test]
async fn a_permanent_version_conflict_is_the_handlers_failure() {
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    audit.insert_events(vec![event(OPENED, 2, 1)]).await.unwrap();
    let mut processor = Processor::new("audit", bank, audit.clone(), notice);
    let error = processor.run().await.unwrap_err();
    let ProcessorError::Handler { notification, source, .. } = error else { panic!("{error:?}") };
    assert_eq!(notification.id, 2);
    assert!(source.downcast_ref::<PersistenceError>().unwrap().is_conflict());
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_position_beyond_the_end_of_the_log_is_refused() {
    let (bank, audit) = (bank(3).await, PopoProcessRecorder::new());
    audit.insert_tracking(Tracking::new("audit", 4).unwrap()).await.unwrap();
    let mut processor = Processor::new("audit", bank, audit, notice);
    let error = processor.run().await.unwrap_err();
    let ProcessorError::Persistence { source, .. } = error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::RolledBack);
}

/// A log that can be exchanged for an older one, as by the restore of a backup.
#[derive(Clone, Debug)]
struct Restorable {
    log: Arc<Mutex<PopoApplicationRecorder>>,
    commits: Arc<Signal>,
    /// Reads that fail from now on, as when the connection is lost.
    failures: Arc<AtomicUsize>,
}

impl Restorable {
    fn new(log: PopoApplicationRecorder) -> Self {
        Self { log: Arc::new(Mutex::new(log)), commits: Arc::default(), failures: Arc::default() }
    }

    fn restore(&self, log: PopoApplicationRecorder) {
        *self.log.lock().unwrap() = log;
        self.commits.wake_all();
    }

    fn log(&self) -> PopoApplicationRecorder {
        self.log.lock().unwrap().clone()
    }
}

impl Recorder for Restorable {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.commits.close();
        Ok(())
    }
}

impl AggregateRecorder for Restorable {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.log().insert_events(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.log().select_events(originator_id, range).await
    }
}

impl ApplicationRecorder for Restorable {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            return Err(PersistenceError::operational("the connection is lost").transient());
        }
        self.log().select_notifications(selection).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.log().max_notification_id().await
    }

    fn commit_signal(&self) -> &Signal {
        &self.commits
    }
}

/// The bug: only the first position of a run was compared with the log. After the log was cut back to 7
/// under a processor at 10, the new notifications 8 to 10 were never handled, without an error.
#[tokio::test]
async fn a_log_that_is_restored_under_a_processor_is_noticed() {
    for topics in [vec![], vec![CREDITED]] {
        // Also if the log has passed the position again: the failed read indicates a change.
        for (rest, failures) in [(7, 0), (7, 1), (20, 1)] {
            let (bank_log, audit) = (Restorable::new(bank(10).await), PopoProcessRecorder::new());
            let restored = bank(7).await;
            credit(&restored, 100..100 + rest - 7).await;
            let mut processor =
                Processor::new("audit", bank_log.clone(), audit.clone(), notice).topics(&topics);
            let restore = async {
                audit.wait("audit", 10, TOO_LONG).await.unwrap();
                bank_log.failures.store(failures, Ordering::SeqCst);
                bank_log.restore(restored);
            };
            let running = async { tokio::join!(processor.run(), restore).0 };
            let error = tokio::time::timeout(TOO_LONG, running).await.unwrap().unwrap_err();
            let ProcessorError::Persistence { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.kind(), ErrorKind::RolledBack, "{source}");
            assert!(source.to_string().contains("\"audit\""), "{source}");
            assert_eq!(audited(&audit).await, (1..=10).collect::<Vec<_>>());
        }
    }
}

/// Another instance moves on over notifications of other topics while this one handles the next.
#[tokio::test]
async fn an_instance_continues_after_another_moved_past_other_topics() {
    let (bank, audit) = (bank(4).await, PopoProcessRecorder::new());
    bank.insert_events(vec![event(OPENED, 5, 1)]).await.unwrap();
    let handler = {
        let audit = audit.clone();
        move |notification: Notification| {
            let audit = audit.clone();
            async move {
                let rival = Tracking::new("audit", 3).and_then(|tracking| tracking.after(0));
                // On the second call the position has moved, and this fails.
                let _ = audit.insert_tracking(rival?).await;
                Ok::<_, PersistenceError>(vec![noticed(&notification)])
            }
        }
    };
    let mut processor = Processor::new("audit", bank, audit.clone(), handler)
        .topics([OPENED])
        .standby_pause(Duration::from_millis(1));
    run_until(&mut processor, &audit, 5).await;
    assert_eq!(audited(&audit).await, [5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_one_is_a_standby_and_takes_over() {
    let (bank, audit) = (bank(300).await, PopoProcessRecorder::new());
    let calls = Arc::new(AtomicUsize::new(0));
    let instance = || {
        let counted = Arc::clone(&calls);
        let handler = move |notification: Notification| {
            counted.fetch_add(1, Ordering::Relaxed);
            notice(notification)
        };
        Processor::new("audit", bank.clone(), audit.clone(), handler)
            .batch_size(NonZeroUsize::new(7).unwrap())
            .standby_pause(Duration::from_millis(1))
    };
    let instances =
        [instance(), instance()].map(|mut processor| tokio::spawn(async move { processor.run().await }));
    for originator in 301..=400 {
        credit(&bank, [originator]).await;
        tokio::task::yield_now().await;
    }
    audit.wait("audit", 350, TOO_LONG).await.unwrap();
    instances[0].abort();
    audit.wait("audit", 400, TOO_LONG).await.unwrap();
    assert_eq!(audited(&audit).await, (1..=400).collect::<Vec<_>>());
    bank.close().await.unwrap();
    let [_, other] = instances;
    other.await.unwrap().unwrap();
}

#[tokio::test]
async fn notifications_that_another_instance_processed_in_smaller_batches_are_not_repeated() {
    // The handler's events conflict with no others: only the position does.
    let (bank, audit) = (bank(10).await, PopoProcessRecorder::new());
    let rival = audit.clone();
    let mut is_first = true;
    let handler = move |notification: Notification| {
        let rival = is_first.then(|| rival.clone());
        is_first = false;
        async move {
            if let Some(rival) = rival {
                // While the first of ten is handled, another instance processes five.
                let events = (1..=5).map(|originator| event(NOTICED, originator, 1)).collect();
                let tracking = Tracking::spanning("audit", 1, 5)?;
                rival.insert_events_with_tracking(events, tracking).await?;
            }
            let originator_id = Uuid::new_v4();
            Ok::<_, PersistenceError>(vec![StoredEvent { originator_id, ..noticed(&notification) }])
        }
    };
    let mut processor =
        Processor::new("audit", bank, audit.clone(), handler).standby_pause(Duration::from_millis(1));
    run_until(&mut processor, &audit, 10).await;
    assert_eq!(audit.max_notification_id().await.unwrap(), Some(10));
}

#[tokio::test]
async fn a_processor_that_is_dropped_at_any_point_and_run_again_has_the_same_result() {
    // Each handling takes three polls; the run is dropped after 0, 1, 2, … polls.
    let (bank, audit) = (bank(6).await, PopoProcessRecorder::new());
    let handler = async |notification: Notification| {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        notice(notification).await
    };
    let mut processor =
        Processor::new("audit", bank, audit.clone(), handler).batch_size(NonZeroUsize::new(4).unwrap());
    for polls in 0..40 {
        let mut run = pin!(processor.run());
        for _ in 0..polls {
            assert!(run.as_mut().now_or_never().is_none());
        }
    }
    assert_eq!(audited(&audit).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), Some(6));
}

/// Parks with an event whose version is already recorded, so that parking always fails.
struct ParksWhereItCannot;

impl Handler for ParksWhereItCannot {
    type Error = io::Error;

    async fn handle(&mut self, _: Notification) -> Result<Vec<StoredEvent>, io::Error> {
        Err(io::Error::other("no such account"))
    }

    async fn park(&mut self, _: Notification, _: HandlerError) -> Result<Vec<StoredEvent>, HandlerError> {
        Ok(vec![event(OPENED, 99, 1)])
    }
}

#[tokio::test]
async fn a_notification_that_cannot_be_parked_stops_the_processor() {
    // Regression: parking recursed until the stack overflowed.
    let (bank, audit) = (bank(2).await, PopoProcessRecorder::new());
    audit.insert_events(vec![event(OPENED, 99, 1)]).await.unwrap();
    let mut processor = Processor::new("audit", bank, audit.clone(), ParksWhereItCannot);
    let error = processor.run().await.unwrap_err();
    let ProcessorError::Handler { notification, source, .. } = error else { panic!("{error:?}") };
    assert_eq!(notification.id, 1);
    assert!(source.downcast_ref::<PersistenceError>().unwrap().is_conflict());
    assert_eq!(audit.max_tracking_id("audit").await.unwrap(), None);
}

/// Returns the configured results, and counts the calls.
struct Answers<F> {
    recorder: PopoTrackingRecorder,
    answer: F,
    asked: Arc<AtomicUsize>,
}

impl<F: FnMut() -> Result<usize, ConsumerError> + Send> Answers<F> {
    fn new(answer: F) -> (Self, Arc<AtomicUsize>) {
        let asked = Arc::<AtomicUsize>::default();
        (Self { recorder: PopoTrackingRecorder::new(), answer, asked: Arc::clone(&asked) }, asked)
    }
}

impl<F: FnMut() -> Result<usize, ConsumerError> + Send> NotificationConsumer for Answers<F> {
    type Recorder = PopoTrackingRecorder;

    fn recorder(&self) -> &PopoTrackingRecorder {
        &self.recorder
    }

    async fn process(&mut self, _: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        (self.answer)()
    }

    async fn park(&mut self, _: NotificationBatch<'_>, error: HandlerError) -> Result<(), ConsumerError> {
        Err(ConsumerError::Handler { index: 0, error })
    }
}

#[tokio::test]
async fn an_invalid_count_of_a_consumer_is_an_error() {
    // With 0 handled the call would be repeated without limit; with more than given, the next batch would
    // skip notifications.
    for handled in [0, 3, usize::MAX] {
        let (downstream, asked) = Answers::new(move || Ok(handled));
        let batch_size = NonZeroUsize::new(2).unwrap();
        let mut processor =
            Processor::with_consumer("audit", bank(5).await, downstream).batch_size(batch_size);
        let error = processor.run().await.unwrap_err();
        assert!(matches!(error, ProcessorError::Persistence { .. }), "{error:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
    let failure = || ConsumerError::Handler { index: 7, error: "at what?".into() };
    let (downstream, asked) = Answers::new(move || Err(failure()));
    let error = Processor::with_consumer("audit", bank(5).await, downstream).run().await.unwrap_err();
    assert!(matches!(error, ProcessorError::Persistence { .. }), "{error:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn it_pauses_after_a_commit_with_an_unknown_outcome() {
    let unknown = || PersistenceError::new(ErrorKind::OutcomeUnknown, "the disk fails");
    let (downstream, asked) = Answers::new(move || Err(unknown().into()));
    let mut processor = Processor::with_consumer("audit", bank(1).await, downstream);
    assert!(processor.run().now_or_never().is_none());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn it_ends_with_the_upstream_while_the_downstream_is_unavailable() {
    let down = || PersistenceError::operational("the server is down").transient();
    let (downstream, _) = Answers::new(move || Err(down().into()));
    let bank = bank(1).await;
    let mut processor = Processor::with_consumer("audit", bank.clone(), downstream);
    let mut run = pin!(processor.run());
    assert!(run.as_mut().now_or_never().is_none());
    bank.close().await.unwrap();
    // At once: without waiting for the end of the pause.
    assert!(matches!(run.now_or_never(), Some(Ok(()))));
}

#[tokio::test]
async fn it_ends_with_the_upstream_between_two_batches() {
    let (bank, tracking) = (bank(4).await, PopoTrackingRecorder::new());
    let batches = Arc::default();
    let downstream = Batches { recorder: tracking.clone(), batches: Arc::clone(&batches) };
    let mut processor =
        Processor::with_consumer("audit", bank.clone(), Closing { downstream, upstream: bank })
            .batch_size(NonZeroUsize::MIN);
    processor.run().await.unwrap();
    assert_eq!(*batches.lock().unwrap(), [(1, 1)]);
}

/// Closes the upstream while the first batch is processed.
struct Closing {
    downstream: Batches,
    upstream: PopoApplicationRecorder,
}

impl NotificationConsumer for Closing {
    type Recorder = PopoTrackingRecorder;

    fn recorder(&self) -> &PopoTrackingRecorder {
        self.downstream.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        self.upstream.close().await?;
        self.downstream.process(batch).await
    }

    async fn park(&mut self, batch: NotificationBatch<'_>, error: HandlerError) -> Result<(), ConsumerError> {
        self.downstream.park(batch, error).await
    }
}

#[test]
fn positions_within_a_batch_never_exceed_the_handled_notifications() {
    let notification = |id| Notification { id, event: event(OPENED, 1, id) };
    let notifications = [notification(4), notification(7)];
    let batch = NotificationBatch {
        application_name: "audit",
        notifications: &notifications,
        position: 9,
        expected_position: None,
    };
    assert_eq!([0, 1, 2, 3].map(|handled| batch.position_after(handled)), [3, 4, 9, 9]);
    let empty = NotificationBatch { notifications: &[], ..batch };
    assert_eq!(empty.position_after(0), 9);
}

/// Sums even and odd ids; fails at one if configured.
struct Sums {
    fails_at: Option<i64>,
    parks: bool,
}

impl PopoProjection for Sums {
    type View = HashMap<bool, i64>;
    type Error = io::Error;

    fn project(&mut self, view: &mut Self::View, notification: &Notification) -> Result<(), io::Error> {
        // Changed before it fails: readers must not see the change.
        *view.entry(notification.id % 2 == 0).or_default() += notification.id;
        if self.fails_at == Some(notification.id) { Err(io::Error::other("no such row")) } else { Ok(()) }
    }

    fn park(
        &mut self,
        view: &mut Self::View,
        _: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        if !self.parks {
            return Err(failure);
        }
        view.insert(false, -1);
        Ok(())
    }
}

#[tokio::test]
async fn a_view_changes_with_its_position() {
    let (bank, tracking) = (bank(10).await, PopoTrackingRecorder::new());
    let projector = tracking.projector(Sums { fails_at: None, parks: false }, HashMap::new());
    let view = projector.view();
    let mut processor = Processor::with_consumer("audit", bank, projector);
    run_until(&mut processor, &tracking, 10).await;
    assert_eq!(*view.read(), HashMap::from([(false, 25), (true, 30)]));
}

#[tokio::test]
async fn a_failed_projection_has_no_partial_effect() {
    let (bank, tracking) = (bank(10).await, PopoTrackingRecorder::new());
    let projector = tracking.projector(Sums { fails_at: Some(4), parks: false }, HashMap::new());
    let view = projector.view();
    let error = Processor::with_consumer("audit", bank, projector).run().await.unwrap_err();
    assert!(matches!(error, ProcessorError::Handler { notification, .. } if notification.id == 4));
    assert_eq!(*view.read(), HashMap::from([(false, 4), (true, 2)]));
    assert_eq!(tracking.max_tracking_id("audit").await.unwrap(), Some(3));
}

#[tokio::test]
async fn a_projection_parks_in_the_commit_of_the_position() {
    let (bank, tracking) = (bank(5).await, PopoTrackingRecorder::new());
    let projector = tracking.projector(Sums { fails_at: Some(4), parks: true }, HashMap::new());
    let view = projector.view();
    let mut processor = Processor::with_consumer("audit", bank, projector);
    run_until(&mut processor, &tracking, 5).await;
    assert_eq!(*view.read(), HashMap::from([(false, 4), (true, 2)]));
}

/// A view that panics on drop if configured.
#[derive(Clone, Default)]
struct Explosive(bool);

impl Drop for Explosive {
    fn drop(&mut self) {
        assert!(!self.0, "dropped");
    }
}

struct Defuse;

impl PopoProjection for Defuse {
    type View = Explosive;
    type Error = Infallible;

    fn project(&mut self, view: &mut Explosive, _: &Notification) -> Result<(), Infallible> {
        view.0 = false;
        Ok(())
    }
}

#[tokio::test]
async fn a_replaced_view_is_dropped_without_a_lock() {
    let (bank, tracking) = (bank(1).await, PopoTrackingRecorder::new());
    let mut processor = Processor::with_consumer("audit", bank, tracking.projector(Defuse, Explosive(true)));
    let panicked = tokio::spawn(async move { processor.run().await }).await.unwrap_err();
    assert!(panicked.is_panic());
    // Regression: the recorder was unusable after this.
    assert_eq!(tracking.max_tracking_id("audit").await.unwrap(), Some(1));
}

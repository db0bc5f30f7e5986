//! The partitioned processor, by its settings.

use std::{
    fmt,
    future::ready,
    num::{NonZeroU16, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use es_core::{
    ApplicationRecorder, Event, EventStore, Notification, NotificationConsumer, PersistenceError,
    ProcessRecorder, Segment, SegmentRecorder, StopHandle, Transcoder,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{consumer::SegmentConsumer, hash::key_hash, settings::Settings, worker::Worker};
use crate::{
    DecodingHandler, EventHandler, HandlerConsumer, Processor, ProcessorError, Progress, metrics::Metrics,
    progress::RunGuard,
};

/// The default number of segments.
pub const DEFAULT_SEGMENTS: NonZeroU16 = NonZeroU16::new(16).unwrap();

/// The default duration of a lease.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);

/// The shortest duration of a lease.
const SHORTEST_LEASE: Duration = Duration::from_millis(100);
/// The longest duration of a lease.
const LONGEST_LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// A worker of a partitioned consumer: processes a share of the notifications of an upstream, beside other
/// workers in tasks, processes or on machines that have the same name and datastore.
///
/// ```text
///   log  1a 2b 3c 4a 5d 6b 7c …         a, b, c, d: aggregates
///          ├─ segment 0 (a, c) ─▶ 1a 3c 4a 7c   worker 1, position 7
///          └─ segment 1 (b, d) ─▶ 2b 5d 6b      worker 2, position 7
/// ```
///
/// - **Segments.** The hash of a key, by default that of the aggregate, selects the segment of a
///   notification. Notifications with one key are processed in order; those of different segments are not
///   ordered. Each segment has a position of its own, which is committed with the effects, and is processed
///   exactly once: as by a [`Processor`], of which each segment has one.
/// - **Leases.** A worker claims its share of the segments, and renews its lease at a third of its duration.
///   A worker that ends releases its segments; those of a worker that is killed are free when its lease is
///   over. Workers may join and leave at any time.
/// - **Fencing.** Each claim moves the position of the segment to a new name, in the transaction that changes
///   the owner. A commit of an earlier owner requires the position under the earlier name, and fails, however
///   late it arrives. A worker also begins no commit when its lease is over by its own clock. A commit that
///   it began before takes effect only if it precedes the next claim, which continues after it. Differences
///   of clocks therefore cost time, and no correctness.
/// - **Names.** The position of a segment is recorded as [`Segment::tracking_name`]. A consumer that was not
///   partitioned continues at its position; stop its [`Processor`] before. Metrics have the name without the
///   epoch.
/// - A failure that would stop a [`Processor`] stops the worker, which releases its segments.
///
/// ```
/// use es_core::{DomainEvent, EventNotification, EventStore, Expected, Mapper, PersistenceError};
/// use es_core::{SegmentRecorderExt, uuid::Uuid};
/// use es_popo::PopoProcessRecorder;
/// use es_process::{NewEvents, PartitionedProcessor, key_hash};
/// # use es_derive::Event;
/// # use es_transcode::JsonTranscoder;
/// # use std::time::Duration;
///
/// #[derive(Event)]
/// #[event(topic = "shop:Placed")]
/// struct Placed {
///     item: String,
/// }
///
/// #[derive(Event)]
/// #[event(topic = "shop:Reserved")]
/// struct Reserved {
///     item: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mapper = Mapper::new(JsonTranscoder::new());
/// # let orders = EventStore::new(PopoProcessRecorder::new(), mapper.clone());
/// # let stock = EventStore::new(PopoProcessRecorder::new(), mapper);
/// // A handler for each segment.
/// let handler = |_segment| {
///     async |notification: EventNotification<Placed>| {
///         let mut new = NewEvents::new();
///         let DomainEvent { originator_id, payload, .. } = notification.event;
///         new.push(DomainEvent::new(originator_id, 1, Reserved { item: payload.item }));
///         Ok::<_, PersistenceError>(new)
///     }
/// };
/// let worker = PartitionedProcessor::for_events("reservations", &orders, &stock, handler);
/// let mut running = worker.spawn()?; // as many as wanted, in any process
///
/// let order = Uuid::now_v7();
/// let ids = orders.append(order, Expected::New, [Placed { item: "book".to_owned() }]).await?;
/// # let timeout = Duration::from_secs(10);
/// let hash = key_hash(order.as_bytes());
/// stock.recorder().wait_for_key("reservations", hash, ids[0], timeout).await?; // read your writes
/// running.stop();
/// running.join().await?;
/// # Ok(())
/// # }
/// ```
pub struct PartitionedProcessor<U, L, C>(Settings<U, L, C>);

impl<U, L, C> PartitionedProcessor<U, L, C>
where
    U: ApplicationRecorder + Clone + 'static,
    L: SegmentRecorder,
    C: NotificationConsumer + 'static,
{
    /// Passes the notifications of `upstream` to consumers that `make` returns, one for each claim of a
    /// segment: projectors, or consumers of your own.
    ///
    /// `recorder` has the segments. It is a recorder of the tables in which the consumers record their
    /// positions.
    pub fn new<F>(
        name: impl Into<String>,
        upstream: U,
        recorder: L,
        mut make: impl FnMut(Segment) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<C, PersistenceError>> + Send + 'static,
    {
        Self(Settings {
            name: name.into(),
            upstream,
            leases: recorder,
            make: Mutex::new(Box::new(move |segment| Box::pin(make(segment)))),
            configure: Box::new(|processor| processor),
            key_hash: Arc::new(|notification| key_hash(notification.event.originator_id.as_bytes())),
            segments: DEFAULT_SEGMENTS,
            lease: DEFAULT_LEASE,
            concurrency: Semaphore::MAX_PERMITS,
            progress: Progress::default(),
            stop: StopHandle::new(),
        })
    }

    /// Sets the options of the processors of the segments: topics, batches, retries.
    ///
    /// ```
    /// # use es_core::{ApplicationRecorder, NotificationConsumer, SegmentRecorder, Topic};
    /// # use es_process::{PartitionedProcessor, RetryPolicy};
    /// # fn example<U, L, C>(worker: PartitionedProcessor<U, L, C>) -> PartitionedProcessor<U, L, C>
    /// # where
    /// #     U: ApplicationRecorder + Clone + 'static,
    /// #     L: SegmentRecorder,
    /// #     C: NotificationConsumer + 'static,
    /// # {
    /// let placed = [Topic::from_static("shop:Placed")];
    /// worker.processors(move |processor| {
    ///     processor.topics(&placed).retries(RetryPolicy::max_retries(3))
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn processors(
        mut self,
        configure: impl Fn(Processor<U, SegmentConsumer<C>>) -> Processor<U, SegmentConsumer<C>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let before = self.0.configure;
        self.0.configure = Box::new(move |processor| configure(before(processor)));
        self
    }

    /// Sets the key of a notification, by default its originator id. Notifications with one key are processed
    /// in order.
    ///
    /// It must be the same in all workers and at all times: with another one, notifications of one key would
    /// be in two segments, of which one may have processed what the other has not. To change it, choose a new
    /// name.
    #[must_use]
    pub fn key<K: AsRef<[u8]>>(mut self, key: impl Fn(&Notification) -> K + Send + Sync + 'static) -> Self {
        self.0.key_hash = Arc::new(move |notification| key_hash(key(notification).as_ref()));
        self
    }

    /// The number of segments, [`DEFAULT_SEGMENTS`] by default: an upper bound of the number of workers. The
    /// first worker of a consumer creates them; later it has no effect.
    /// [`SegmentChange`](es_core::SegmentChange) splits and merges them.
    #[must_use]
    pub fn segments(mut self, segments: NonZeroU16) -> Self {
        self.0.segments = segments;
        self
    }

    /// The duration of the lease, of 100 ms to a day; [`DEFAULT_LEASE`] by default. The segments of a worker
    /// that was killed are processed again after this time.
    ///
    /// Choose more than twice the time that a commit may take: a worker whose renewals take longer than half
    /// of the lease claims nothing, and loses what it has.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.0.lease = lease.clamp(SHORTEST_LEASE, LONGEST_LEASE);
        self
    }

    /// The number of segments of this worker whose handlers may run at the same time; by default all.
    #[must_use]
    pub fn concurrency(mut self, segments: NonZeroUsize) -> Self {
        self.0.concurrency = segments.get().min(Semaphore::MAX_PERMITS);
        self
    }

    /// Returns a handle that stops the worker from another task or thread: the batches in progress are
    /// committed, and the segments released. A stopped worker does not run again.
    pub fn stop_handle(&self) -> StopHandle {
        self.0.stop.clone()
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns a handle on the progress. Its position is the lowest one of all segments, also of other
    /// workers, at the last renewal; it counts the notifications that this worker has processed.
    pub fn progress(&self) -> Progress {
        self.0.progress.clone()
    }

    /// Processes the notifications of segments that it claims, until the upstream recorder is closed or the
    /// worker is [stopped](Self::stop_handle). [`spawn`](Self::spawn) does so in a task.
    ///
    /// # Errors
    /// As [`Processor::run`], for each segment; of kind [`Interface`](es_core::ErrorKind::Interface) outside
    /// of a tokio runtime.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future stops the worker. Its segments are free when its lease is over.
    pub async fn run(&mut self) -> Result<(), ProcessorError> {
        let metrics = Metrics::new(&self.0.name);
        let progress = self.0.progress.clone();
        let guard = RunGuard::new(&progress, &metrics);
        let result = Worker::new(&mut self.0).run().await;
        guard.finish(&result);
        result
    }
}

impl<U, R, H, E, S, T> PartitionedProcessor<U, R, HandlerConsumer<R, DecodingHandler<H, E, S, T>>>
where
    U: ApplicationRecorder + Clone + 'static,
    R: ProcessRecorder + SegmentRecorder + Clone + 'static,
    H: EventHandler<E, T> + 'static,
    E: Event + 'static,
    S: Transcoder + Clone + 'static,
    T: Transcoder + Clone + 'static,
{
    /// Passes the events of type `E` of one store to handlers that `handler` returns, one for each claim of a
    /// segment, and records the events that they return with another store, or the same: see
    /// [`Processor::for_events`].
    pub fn for_events(
        name: impl Into<String>,
        upstream: &EventStore<U, S>,
        downstream: &EventStore<R, T>,
        mut handler: impl FnMut(Segment) -> H + Send + 'static,
    ) -> Self {
        let name = name.into();
        let (decoder, encoder) = (upstream.mapper().clone(), downstream.mapper().clone());
        let (recorder, consumer_name) = (downstream.recorder().clone(), name.clone());
        let make = move |segment| {
            let (decoder, encoder) = (decoder.clone(), encoder.clone());
            let handler = DecodingHandler::new(consumer_name.clone(), handler(segment), decoder, encoder);
            ready(Ok(HandlerConsumer::new(recorder.clone(), handler).events_per_commit(1)))
        };
        let recorder = downstream.recorder().clone();
        Self::new(name, upstream.recorder().clone(), recorder, make)
            .processors(|processor| processor.topics(E::TOPICS))
    }
}

impl<U: fmt::Debug, L: fmt::Debug, C> fmt::Debug for PartitionedProcessor<U, L, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionedProcessor")
            .field("name", &self.0.name)
            .field("upstream", &self.0.upstream)
            .field("recorder", &self.0.leases)
            .field("segments", &self.0.segments)
            .field("lease", &self.0.lease)
            .finish_non_exhaustive()
    }
}

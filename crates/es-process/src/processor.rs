//! The processor: follows an upstream and commits the effects of its notifications once each.

use std::{collections::HashMap, fmt, num::NonZeroUsize, pin::pin, sync::Arc, time::Duration};

use es_core::{
    ApplicationRecorder, ApplicationRecorderExt, Conflict, ConsumerError, DEFAULT_PAGE_SIZE, HandlerError,
    Notification, NotificationBatch, NotificationConsumer, NotificationPage, PersistenceError,
    ProcessRecorder, StopHandle, Subscription, Topic, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use futures_util::future::{Either, select};

use crate::{
    Handler, HandlerConsumer, ProcessorError, Progress, RetryPolicy,
    metrics::Metrics,
    names::NameClaim,
    pages::{Pages, SharedPages, SharedReads},
    progress::RunGuard,
};

/// The default maximum of notifications that a processor handles per commit.
pub const DEFAULT_BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(500).unwrap();

/// The default pause of an instance that lost a notification to another one.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// Processes the notifications of an upstream: follows them from the recorded position, and passes them to
/// a consumer that commits their effects and the new position together.
///
/// - **The name** of the consumer is the key of its position, and its name in errors, logs and metrics. Give
///   each consumer a name of its own: the second of two consumers with one name would find its notifications
///   processed already. [`run`](Self::run) refuses a name that is in use by a different consumer, where it
///   can detect that: another type or other topics, in the same process. It logs a warning if only the
///   upstream is another recorder, since that may be the same database, opened separately. To repeat all
///   notifications, choose a new name. To continue at the position of a program that uses the Python library,
///   give the name of the upstream application, as that library does.
/// - **Catching up**, it handles several notifications per commit ([`batch_size`](Self::batch_size)).
///   Live, each is handled and committed as it arrives.
/// - **Transient failures** (a lost connection, a locked database) are retried without a limit, and
///   logged with `tracing` as warnings.
/// - **A handler that fails** is called again by the [`retries`](Self::retries) policy, by default not at
///   all. Then the notification is parked if the handler implements that. Otherwise the processor stops
///   with an error that names it.
/// - **A log or a tracking record that was rolled back**, by a failover to a lagging standby or the
///   restore of a backup, stops the processor with an error of kind
///   [`RolledBack`](es_core::ErrorKind::RolledBack): continuing would skip events or repeat effects. Each
///   commit compares the recorded position with the position that the processor reached, and the upstream
///   is checked as by a [`Subscription`].
/// - **Two instances** of one processor never both succeed for one notification. The one that loses
///   continues after the other's position, and is a standby while the other makes progress; it takes over
///   when the other ends.
///
/// See the [crate's documentation](crate) for an example.
pub struct Processor<R, C> {
    settings: Settings<R>,
    consumer: C,
}

/// All parts of a processor but the consumer, which need not be [`Sync`].
#[derive(Debug)]
struct Settings<R> {
    name: String,
    /// The name in metrics, if it is another one.
    label: Option<String>,
    upstream: R,
    /// The reads of the upstream that it shares with other processors, if any.
    reads: Option<SharedReads<R>>,
    topics: Vec<Topic>,
    batch_size: NonZeroUsize,
    page_size: NonZeroUsize,
    poll_interval: Option<Duration>,
    standby_pause: Duration,
    retries: RetryPolicy,
    progress: Progress,
    stop: StopHandle,
}

impl<U, R, H> Processor<U, HandlerConsumer<R, H>>
where
    U: ApplicationRecorder + Clone,
    R: ProcessRecorder,
    H: Handler,
{
    /// Passes the notifications of `upstream` to `handler`, and records the events that it returns with
    /// `recorder`, together with the position of the consumer `name`.
    pub fn new(name: impl Into<String>, upstream: U, recorder: R, handler: H) -> Self {
        Self::with_consumer(name, upstream, HandlerConsumer::new(recorder, handler))
    }

    /// The number of new events after which a commit takes no more notifications: 10,000 by default, 1 for
    /// [`for_events`](Self::for_events).
    ///
    /// A call of the handler does not see the events of earlier calls for the same commit; see
    /// [`batch_size`](Self::batch_size).
    #[must_use]
    pub fn events_per_commit(mut self, events: NonZeroUsize) -> Self {
        self.consumer = self.consumer.events_per_commit(events.get());
        self
    }
}

impl<R: ApplicationRecorder + Clone, C: NotificationConsumer> Processor<R, C> {
    /// Passes the notifications of `upstream` to a consumer: a projector, or one of your own. Its position is
    /// recorded under `name`.
    pub fn with_consumer(name: impl Into<String>, upstream: R, consumer: C) -> Self {
        let settings = Settings {
            name: name.into(),
            label: None,
            upstream,
            reads: None,
            topics: Vec::new(),
            batch_size: DEFAULT_BATCH_SIZE,
            page_size: DEFAULT_PAGE_SIZE,
            poll_interval: None,
            standby_pause: STANDBY_PAUSE,
            retries: RetryPolicy::NONE,
            progress: Progress::default(),
            stop: StopHandle::new(),
        };
        Self { settings, consumer }
    }

    /// Processes notifications of these topics only; by default, and for an empty list, of all topics.
    ///
    /// The database filters. The position moves past other topics, so that they are not scanned again
    /// after a restart.
    #[must_use]
    pub fn topics(mut self, topics: impl AsRef<[Topic]>) -> Self {
        self.settings.topics = topics.as_ref().to_vec();
        self
    }

    /// The maximum of notifications per commit; [`DEFAULT_BATCH_SIZE`] by default (`processor, catching
    /// up` of `cargo xtask bench`).
    ///
    /// Calls of a handler for one commit do not see each other's events in the recorder. If a call returns
    /// an event with the originator and version of an earlier call's event, the commit ends before it, and
    /// the handler is called again for that notification. A handler that depends on earlier events in
    /// other ways needs a batch size of 1. A projection reads its own writes for earlier notifications.
    #[must_use]
    pub fn batch_size(mut self, batch_size: NonZeroUsize) -> Self {
        self.settings.batch_size = batch_size;
        self
    }

    /// The maximum of notifications per read; [`DEFAULT_PAGE_SIZE`] by default.
    #[must_use]
    pub fn page_size(mut self, page_size: NonZeroUsize) -> Self {
        self.settings.page_size = page_size;
        self
    }

    /// The longest wait for a signal before the log is read; see [`Subscription::poll_interval`].
    #[must_use]
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.settings.poll_interval = Some(poll_interval);
        self
    }

    /// The pause after another instance has recorded a position first; 1 s by default.
    ///
    /// If the position has not moved after the pause, this instance takes over. Another instance that
    /// takes longer for one batch is then still at work: that batch is handled twice, and recorded once.
    #[must_use]
    pub fn standby_pause(mut self, standby_pause: Duration) -> Self {
        self.settings.standby_pause = standby_pause;
        self
    }

    /// The policy for calling a handler again that failed; [`RetryPolicy::NONE`] by default.
    #[must_use]
    pub fn retries(mut self, retries: RetryPolicy) -> Self {
        self.settings.retries = retries;
        self
    }

    /// Returns a handle that stops the processor from another task or thread: the batch in progress is
    /// committed, then [`run`](Self::run) returns. A stopped processor does not run again.
    pub fn stop_handle(&self) -> StopHandle {
        self.settings.stop.clone()
    }

    /// Sets the name in metrics. The name of a segment's position changes with each claim, and metrics must
    /// not.
    #[must_use]
    pub(crate) fn labelled(mut self, label: String) -> Self {
        self.settings.label = Some(label);
        self
    }

    /// Has it share its reads of the upstream with other processors of the same topics.
    #[must_use]
    pub(crate) fn sharing(mut self, reads: SharedReads<R>) -> Self {
        self.settings.reads = Some(reads);
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Returns a handle on the processor's progress, to be read while it runs.
    pub fn progress(&self) -> Progress {
        self.settings.progress.clone()
    }

    /// Processes all notifications, first recorded and then live ones, until the upstream recorder is
    /// closed or the processor is [stopped](Self::stop_handle). [`spawn`](Self::spawn) does so in a task.
    ///
    /// # Errors
    /// [`ProcessorError::Handler`] for a notification that cannot be handled;
    /// [`ProcessorError::Persistence`] for failures that are not transient, among them an upstream log or a
    /// recorded position that was [rolled back](PersistenceError::is_rolled_back); of kind
    /// [`Programming`](es_core::ErrorKind::Programming) if a different consumer of this process (with another
    /// type or other topics) records its position under the same name, with a clone of the same recorder or
    /// with a recorder that shares its signal. It can be run again.
    ///
    /// # Cancel safety
    /// Cancel safe: dropping the future stops the processor. Either a batch is recorded or not, and a new
    /// run continues after the recorded position.
    pub async fn run(&mut self) -> Result<(), ProcessorError> {
        let (settings, consumer) = (&self.settings, &mut self.consumer);
        let metrics = Metrics::new(settings.label.as_ref().unwrap_or(&settings.name));
        let guard = RunGuard::new(&settings.progress, &metrics);
        let run =
            Run { batch_size: settings.batch_size.get(), position: 0, settings, consumer, metrics: &metrics };
        let result = run.run().await;
        guard.finish(&result);
        result
    }
}

/// One run of a processor.
struct Run<'p, R, C> {
    settings: &'p Settings<R>,
    consumer: &'p mut C,
    metrics: &'p Metrics,
    /// The current maximum of notifications per commit: fewer after one of a batch failed.
    batch_size: usize,
    /// The recorded position, which the next commit expects.
    position: i64,
}

/// The outcome of a batch.
enum BatchOutcome {
    /// The effects of this number of notifications were recorded.
    Handled(usize),
    /// This position is recorded, by another instance or by a commit whose success was not reported.
    Recorded(i64),
    /// The batch must be retried.
    Retry,
}

/// The failures since the last commit.
#[derive(Default)]
struct Failures {
    of_handler: u32,
    of_conflict: u32,
    transient: u32,
    /// The highest version that was in conflict, by aggregate.
    conflicts: HashMap<Uuid, i64>,
}

impl Failures {
    /// Counts a conflict. The count starts again if the version is later than at earlier conflicts: the
    /// handler has read the events of another writer, who was faster again.
    fn count_conflict(&mut self, conflict: &Conflict) {
        if let Conflict::Version { originator_id, originator_version: version } = conflict {
            let highest = self.conflicts.entry(*originator_id).or_insert(*version);
            if version > highest {
                *highest = *version;
                self.of_conflict = 0;
            }
        }
        self.of_conflict += 1;
    }
}

impl<R: ApplicationRecorder + Clone, C: NotificationConsumer> Run<'_, R, C> {
    async fn run(mut self) -> Result<(), ProcessorError> {
        let settings = self.settings;
        let _claim = settings.claim_name(&*self.consumer)?;
        let Some(position) = self.first_position().await? else { return Ok(()) };
        self.position = position;
        tracing::debug!(consumer = settings.name, position, "processing notifications");
        let mut pages = settings.pages(position);
        while let Some(page) = settings.next_page(&mut pages, self.position).await? {
            if !self.process_page(&page).await? {
                break;
            }
        }
        Ok(())
    }

    /// Returns the recorded position, or `None` if the run ends before it can be read.
    async fn first_position(&mut self) -> Result<Option<i64>, ProcessorError> {
        let (settings, recorder) = (self.settings, self.consumer.recorder());
        let read = || recorder.validated_position(&settings.name, &settings.upstream);
        let Some(position) = settings.read_with_retry(read).await? else { return Ok(None) };
        let position = position.unwrap_or(0);
        settings.progress.moved(position, position);
        Ok(Some(position))
    }

    /// Processes the notifications of a page after the recorded position, which is that of the page then, or
    /// a later one if another instance is ahead. Returns false if the run ends before.
    async fn process_page(&mut self, page: &NotificationPage) -> Result<bool, ProcessorError> {
        let settings = self.settings;
        let end = page.position.saturating_add(page.lag);
        let mut rest = after_position(&page.notifications, self.position);
        let mut failures = Failures::default();
        while !settings.is_ended() {
            let batch = self.batch(&settings.name, rest, page.position);
            let outcome = match self.consumer.process(batch).await {
                Ok(handled) if is_valid_count(handled, batch) => BatchOutcome::Handled(handled),
                Ok(handled) => return Err(settings.invalid_count(handled, batch)),
                Err(failure) => self.after(failure, batch, &mut failures).await?,
            };
            let position = match outcome {
                BatchOutcome::Retry => continue,
                // A lower position was rolled back: the next attempt fails with that error.
                BatchOutcome::Recorded(position) if position <= self.position => continue,
                BatchOutcome::Handled(handled) => {
                    failures = Failures::default();
                    self.committed(handled);
                    rest = rest.get(handled..).unwrap_or_default();
                    batch.position_after(handled)
                }
                BatchOutcome::Recorded(position) => {
                    rest = after_position(rest, position);
                    position
                }
            };
            self.moved(position, end);
            if position >= page.position {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the next batch of the rest of a page.
    fn batch<'a>(
        &self,
        application_name: &'a str,
        rest: &'a [Notification],
        position: i64,
    ) -> NotificationBatch<'a> {
        let expected_position = Some(self.position);
        match rest.get(..self.batch_size) {
            Some(notifications) if notifications.len() < rest.len() => {
                let position = notifications.last().map_or(position, |last| last.id);
                NotificationBatch { application_name, notifications, position, expected_position }
            }
            _ => NotificationBatch { application_name, notifications: rest, position, expected_position },
        }
    }

    fn committed(&mut self, notifications: usize) {
        self.metrics.committed(notifications);
        self.settings.progress.processed_more(notifications);
        // Batches that were shrunk after a failure grow again.
        self.batch_size = self.batch_size.saturating_mul(2).min(self.settings.batch_size.get());
    }

    fn moved(&mut self, position: i64, end: i64) {
        self.position = position;
        let Settings { name, progress, .. } = self.settings;
        progress.moved(position, end);
        self.metrics.moved(position, progress.lag());
        tracing::trace!(consumer = name, position, lag = progress.lag(), "processed");
    }

    async fn after(
        &mut self,
        failure: ConsumerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<BatchOutcome, ProcessorError> {
        match failure {
            ConsumerError::Recording(error) => self.after_recording(error, batch, failures).await,
            ConsumerError::Handler { index, error } => {
                self.after_handler(index, error, batch, failures).await
            }
        }
    }

    async fn after_recording(
        &mut self,
        error: PersistenceError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<BatchOutcome, ProcessorError> {
        match error.conflict() {
            Some(Conflict::Tracking { application_name, .. })
                if application_name == batch.application_name =>
            {
                self.metrics.lost();
                self.stand_by().await
            }
            Some(_) if self.shrink_batch(batch.notifications.len() / 2) => Ok(BatchOutcome::Retry),
            // The handler has not read the events that conflict; the next call does.
            Some(conflict) => {
                failures.count_conflict(conflict);
                match RetryPolicy::CONFLICT.pause_after(failures.of_conflict) {
                    Some(pause) => self.settings.wait(pause).await,
                    None => return self.after_handler(0, error.into(), batch, failures).await,
                }
                Ok(BatchOutcome::Retry)
            }
            None if error.is_outcome_unknown() => {
                // A disk that fails every commit does so at once: without a pause this would be a busy loop.
                self.settings.pause(&error, failures).await;
                self.recorded().await
            }
            None if error.is_transient() => {
                self.settings.pause(&error, failures).await;
                Ok(BatchOutcome::Retry)
            }
            None => Err(self.settings.error(error)),
        }
    }

    async fn after_handler(
        &mut self,
        index: usize,
        error: HandlerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<BatchOutcome, ProcessorError> {
        if PersistenceError::is_transient_in(&*error) {
            self.settings.pause(&error, failures).await;
            return Ok(BatchOutcome::Retry);
        }
        let Some(notification) = batch.notifications.get(index) else {
            let message = "the consumer failed at a notification that is not in the batch";
            return Err(self.settings.error(PersistenceError::internal(message).with_source(error)));
        };
        if self.shrink_batch(index) {
            return Ok(BatchOutcome::Retry);
        }
        self.metrics.failed();
        failures.of_handler += 1;
        if let Some(pause) = self.settings.retries.pause_after(failures.of_handler) {
            tracing::warn!(
                consumer = self.settings.name,
                notification = notification.id,
                %error,
                "handling a notification failed; retrying"
            );
            self.settings.wait(pause).await;
            return Ok(BatchOutcome::Retry);
        }
        self.park(notification, error, batch, failures).await
    }

    async fn park(
        &mut self,
        notification: &Notification,
        error: HandlerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<BatchOutcome, ProcessorError> {
        let notifications = std::slice::from_ref(notification);
        let position = if batch.notifications.len() == 1 { batch.position } else { notification.id };
        let alone = NotificationBatch { notifications, position, ..batch };
        let failed = error.to_string();
        match self.consumer.park(alone, error).await {
            Ok(()) => {
                self.metrics.parked();
                tracing::error!(
                    consumer = self.settings.name,
                    notification = notification.id,
                    error = failed,
                    "handling a notification failed; parked"
                );
                Ok(BatchOutcome::Handled(1))
            }
            Err(ConsumerError::Handler { error: source, .. }) => Err(given_up(alone, notification, source)),
            // The events to record instead conflict too, after all retries.
            Err(ConsumerError::Recording(error))
                if is_version_conflict(&error)
                    && failures.of_conflict > RetryPolicy::CONFLICT.max_retries =>
            {
                Err(given_up(alone, notification, error.into()))
            }
            // Boxed: this is recursive, since parking may be tried again.
            Err(ConsumerError::Recording(error)) => {
                Box::pin(self.after_recording(error, alone, failures)).await
            }
        }
    }

    /// Limits the next batches to `notifications`, so that those before a failure are recorded. Returns
    /// false if there are none.
    fn shrink_batch(&mut self, notifications: usize) -> bool {
        if notifications > 0 {
            self.batch_size = notifications;
        }
        notifications > 0
    }

    /// Waits while another instance, which has recorded a position first, makes progress.
    async fn stand_by(&mut self) -> Result<BatchOutcome, ProcessorError> {
        let settings = self.settings;
        let mut known = None;
        loop {
            let BatchOutcome::Recorded(position) = self.recorded().await? else {
                return Ok(BatchOutcome::Retry);
            };
            if known.is_some_and(|known| position <= known) || settings.is_ended() {
                return Ok(BatchOutcome::Recorded(position));
            }
            tracing::info!(
                consumer = settings.name,
                position,
                "another instance of this consumer, or another consumer of this name, is processing; standing by"
            );
            known = Some(position);
            settings.wait(settings.standby_pause).await;
        }
    }

    /// Reads the recorded position.
    async fn recorded(&mut self) -> Result<BatchOutcome, ProcessorError> {
        let (settings, recorder) = (self.settings, self.consumer.recorder());
        let position = settings.read_with_retry(|| recorder.max_tracking_id(&settings.name)).await?;
        Ok(position.flatten().map_or(BatchOutcome::Retry, BatchOutcome::Recorded))
    }
}

impl<R: ApplicationRecorder + Clone> Settings<R> {
    fn claim_name<C: NotificationConsumer>(&self, consumer: &C) -> Result<NameClaim, ProcessorError> {
        let Self { name, upstream, topics, .. } = self;
        NameClaim::new::<C>(name, consumer.recorder().tracking_signal(), upstream.commit_signal(), topics)
            .map_err(|error| self.error(error))
    }

    /// Returns the pages after a position.
    fn pages(&self, position: i64) -> Pages<'_, R> {
        match &self.reads {
            None => Pages::Own(self.subscribe(position)),
            Some(reads) => {
                Pages::Shared(SharedPages::new(reads, &self.topics, |position| self.subscribe(position)))
            }
        }
    }

    /// Waits for a page with the notifications after a position, or the end of the run.
    async fn next_page(
        &self,
        pages: &mut Pages<'_, R>,
        position: i64,
    ) -> Result<Option<Arc<NotificationPage>>, ProcessorError> {
        // Polled first: a stopped processor reads no further page.
        match select(pin!(self.stop.stopped()), pin!(pages.after(position))).await {
            Either::Left(_) => Ok(None),
            Either::Right((page, _)) => page.map_err(|error| self.upstream_error(error)),
        }
    }

    fn subscribe(&self, position: i64) -> Subscription<R> {
        let Self { upstream, topics, page_size, poll_interval, .. } = self;
        let subscription = upstream.subscribe(position, topics).page_size(*page_size);
        match poll_interval {
            Some(poll_interval) => subscription.poll_interval(*poll_interval),
            None => subscription,
        }
    }

    /// Reads, with retries after transient failures. Returns `None` if the run ends meanwhile.
    async fn read_with_retry<T, F>(&self, read: impl Fn() -> F) -> Result<Option<T>, ProcessorError>
    where
        F: Future<Output = Result<T, PersistenceError>>,
    {
        let mut failures = Failures::default();
        loop {
            let Either::Right((result, _)) = select(pin!(self.stop.stopped()), pin!(read())).await else {
                return Ok(None);
            };
            match result {
                Err(_) if self.is_ended() => return Ok(None),
                Err(error) if error.is_transient() => self.pause(&error, &mut failures).await,
                result => return result.map(Some).map_err(|error| self.error(error)),
            }
        }
    }

    /// Waits after a transient failure, longer each time.
    async fn pause(&self, error: &(impl fmt::Display + Sync), failures: &mut Failures) {
        failures.transient = failures.transient.saturating_add(1);
        tracing::warn!(consumer = self.name, %error, "processing failed; retrying");
        self.wait(RetryPolicy::TRANSIENT.pause_after(failures.transient).unwrap_or_default()).await;
    }

    /// Waits for `pause`, or until the run ends.
    async fn wait(&self, pause: Duration) {
        let closed = self.upstream.commit_signal().closed_timeout(pause);
        select(pin!(self.stop.stopped()), pin!(closed)).await;
    }

    /// Returns whether the upstream is closed or the processor is stopped.
    fn is_ended(&self) -> bool {
        self.upstream.commit_signal().is_closed() || self.stop.is_stopped()
    }

    fn error(&self, source: PersistenceError) -> ProcessorError {
        ProcessorError::Persistence { consumer_name: self.name.clone(), source }
    }

    fn upstream_error(&self, error: PersistenceError) -> ProcessorError {
        let named = format!("consumer {:?}", self.name);
        self.error(if error.is_rolled_back() { error.with_context(named) } else { error })
    }

    fn invalid_count(&self, handled: usize, batch: NotificationBatch<'_>) -> ProcessorError {
        let given = batch.notifications.len();
        let message = format!("the consumer claims to have handled {handled} of {given} notifications");
        self.error(PersistenceError::internal(message))
    }
}

/// Checks that `handled` is at most the number of notifications, and at least 1 unless there are none.
fn is_valid_count(handled: usize, batch: NotificationBatch<'_>) -> bool {
    let given = batch.notifications.len();
    (given.min(1)..=given).contains(&handled)
}

fn is_version_conflict(error: &PersistenceError) -> bool {
    matches!(error.conflict(), Some(Conflict::Version { .. }))
}

fn given_up(
    batch: NotificationBatch<'_>,
    notification: &Notification,
    source: HandlerError,
) -> ProcessorError {
    ProcessorError::Handler {
        consumer_name: batch.application_name.to_owned(),
        notification: Box::new(notification.clone()),
        source,
    }
}

/// Returns the notifications after a position.
fn after_position(notifications: &[Notification], position: i64) -> &[Notification] {
    let first = notifications.partition_point(|notification| notification.id <= position);
    notifications.get(first..).unwrap_or_default()
}

impl<R: fmt::Debug, C: fmt::Debug> fmt::Debug for Processor<R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, consumer } = self;
        f.debug_struct("Processor").field("settings", settings).field("consumer", consumer).finish()
    }
}

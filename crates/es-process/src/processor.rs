//! Follows an upstream and has its notifications processed, whatever interrupts.

use std::{fmt, num::NonZeroUsize, time::Duration};

use es_core::{
    ApplicationRecorder, ApplicationRecorderExt, Conflict, ConsumerError, DEFAULT_PAGE_SIZE, HandlerError,
    Notification, NotificationBatch, NotificationConsumer, Page, PersistenceError, ProcessRecorder,
    Subscription, Topic, TrackingRecorder, TrackingRecorderExt,
};

use crate::{Handler, HandlerConsumer, ProcessorError, Progress, RetryPolicy, metrics::Metrics};

/// How many notifications a processor that catches up handles per commit unless told otherwise.
pub const DEFAULT_BATCH_SIZE: NonZeroUsize = NonZeroUsize::new(500).unwrap();

/// How long one that lost a notification to another instance leaves the work to that one.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// Processes the notifications of an upstream application: follows them from the recorded position
/// on, and hands them to a downstream that commits their effects and the new position together.
///
/// - **Catching up**, it handles several notifications per commit
///   ([`batch_size`](Self::batch_size)). Live, each is handled and committed as it arrives.
/// - **Failures that may pass** (a lost connection, a locked database) are tried again for as long as
///   it takes, told to `tracing` as warnings.
/// - **A handler that fails** is called again as [`retries`](Self::retries) say, by default not at
///   all. Then the notification is parked, if the handler knows how; otherwise the processor stops and
///   names it.
/// - **A log or a tracking record that was rolled back**, by a failover to a lagging standby or the
///   restore of a backup, stops the processor with an error of kind
///   [`RolledBack`](es_core::ErrorKind::RolledBack): going on would skip events or repeat effects. Each
///   commit compares the recorded position with the one that the processor reached, and the upstream is
///   compared as a [`Subscription`] does.
/// - **Two instances** of one processor never both succeed for one notification. The one that loses
///   goes on after what the other has recorded, and leaves the work to it for as long as it makes
///   progress: it is a standby that takes over when the other ends.
///
/// See the [crate's documentation](crate) for an example.
pub struct Processor<R, D> {
    application_name: String,
    name: String,
    upstream: R,
    downstream: D,
    topics: Vec<Topic>,
    batch_size: NonZeroUsize,
    page_size: NonZeroUsize,
    poll_interval: Option<Duration>,
    standby_pause: Duration,
    retries: RetryPolicy,
    progress: Progress,
}

impl<U, R, H> Processor<U, HandlerConsumer<R, H>>
where
    U: ApplicationRecorder + Clone,
    R: ProcessRecorder,
    H: Handler,
{
    /// Passes the notifications of `upstream` to `handler`, and records the events that it returns with `recorder`.
    ///
    /// `application_name` is the name under which the position is recorded.
    pub fn new(application_name: impl Into<String>, upstream: U, recorder: R, handler: H) -> Self {
        Self::with_consumer(application_name, upstream, HandlerConsumer::new(recorder, handler))
    }
}

impl<R: ApplicationRecorder + Clone, D: NotificationConsumer> Processor<R, D> {
    /// Passes the notifications of `upstream` to a consumer: a projector, or one of your own.
    ///
    /// `application_name` is the name under which the position is recorded.
    pub fn with_consumer(application_name: impl Into<String>, upstream: R, downstream: D) -> Self {
        let application_name = application_name.into();
        Self {
            name: application_name.clone(),
            application_name,
            upstream,
            downstream,
            topics: Vec::new(),
            batch_size: DEFAULT_BATCH_SIZE,
            page_size: DEFAULT_PAGE_SIZE,
            poll_interval: None,
            standby_pause: STANDBY_PAUSE,
            retries: RetryPolicy::NONE,
            progress: Progress::default(),
        }
    }

    /// Processes notifications of these topics only; of all topics by default, and when there are none.
    ///
    /// The database filters. The position moves past what is left out, so that it is not looked
    /// through again after a restart.
    #[must_use]
    pub fn topics(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.topics = topics.into_iter().collect();
        self
    }

    /// What the processor is called in logs and metrics; the upstream application's name by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Handles so many notifications per commit, at most, when so many are there to be processed;
    /// [`DEFAULT_BATCH_SIZE`] by default (`processor, catching up` of `cargo xtask bench`).
    ///
    /// The handlers of one commit do not see each other's events in the recorder. Where one returns an
    /// event at a place that another one has taken (it has read the same aggregate), the commit ends
    /// before it, and it is called again. A handler that depends on earlier events in other ways needs
    /// a batch size of 1. Projections see what those before them have written.
    #[must_use]
    pub fn batch_size(mut self, batch_size: NonZeroUsize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Reads so many notifications at a time, at most; [`DEFAULT_PAGE_SIZE`] by default.
    #[must_use]
    pub fn page_size(mut self, page_size: NonZeroUsize) -> Self {
        self.page_size = page_size;
        self
    }

    /// Looks for notifications after so long even if nothing has told of any; see
    /// [`Subscription::poll_interval`].
    #[must_use]
    pub fn poll_interval(mut self, poll_interval: Duration) -> Self {
        self.poll_interval = Some(poll_interval);
        self
    }

    /// How long to leave the work to another instance after it has recorded something first, before
    /// looking whether it has gone on; 1 s by default. Another that takes longer for one batch is
    /// taken for ended, which costs handling that batch twice, and nothing else.
    #[must_use]
    pub fn standby_pause(mut self, standby_pause: Duration) -> Self {
        self.standby_pause = standby_pause;
        self
    }

    /// How often a handler that failed is called again; not at all by default.
    #[must_use]
    pub fn retries(mut self, retries: RetryPolicy) -> Self {
        self.retries = retries;
        self
    }

    /// How far the processor is, to be read while it runs.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Processes what is there, and then what comes, until the upstream recorder is closed.
    ///
    /// # Errors
    /// [`ProcessorError::Handler`] for a notification that cannot be handled;
    /// [`ProcessorError::Persistence`] for failures that will not pass, among them an upstream log or a
    /// recorded position that was [rolled back](PersistenceError::is_rolled_back). It can be run again.
    ///
    /// # Cancel safety
    /// Dropping the future is a way to stop: what was handled is recorded whole or not at all, and a
    /// new run goes on after the recorded position.
    pub async fn run(&mut self) -> Result<(), ProcessorError> {
        let mut work = Work {
            metrics: Metrics::new(&self.name),
            largest: self.batch_size.get(),
            position: 0,
            processor: self,
        };
        work.run().await
    }

    fn error(&self, source: PersistenceError) -> ProcessorError {
        ProcessorError::Persistence { application_name: self.application_name.clone(), source }
    }
}

/// One run of a processor.
struct Work<'p, R, D> {
    processor: &'p mut Processor<R, D>,
    metrics: Metrics,
    /// How many notifications to handle per commit now: fewer after a batch failed for one of them.
    largest: usize,
    /// The recorded position, from which the next one is recorded.
    position: i64,
}

/// What comes after a batch.
enum Next {
    /// So many notifications of it are recorded.
    Handled(usize),
    /// This position is recorded, by another instance or by a commit whose success was not reported.
    Recorded(i64),
    /// The same once more.
    Again,
}

/// The failures since something was last recorded.
#[derive(Default)]
struct Failures {
    of_handler: u32,
    of_conflict: u32,
    passing: u32,
}

impl<R: ApplicationRecorder + Clone, D: NotificationConsumer> Work<'_, R, D> {
    async fn run(&mut self) -> Result<(), ProcessorError> {
        let Some(position) = self.first_position().await? else { return Ok(()) };
        self.position = position;
        tracing::debug!(processor = self.processor.name, position, "processing notifications");
        let mut subscription = self.subscribe(position);
        while let Some(page) = subscription.next_page().await.map_err(|error| self.upstream_error(error))? {
            let Some(reached) = self.process_page(&page).await? else { break };
            if reached > page.position {
                subscription.seek(reached);
            }
        }
        Ok(())
    }

    fn subscribe(&self, position: i64) -> Subscription<R> {
        let Processor { upstream, topics, page_size, poll_interval, .. } = &*self.processor;
        let subscription = upstream.subscribe(position, topics.iter().cloned()).page_size(*page_size);
        match poll_interval {
            Some(poll_interval) => subscription.poll_interval(*poll_interval),
            None => subscription,
        }
    }

    /// The recorded position; nothing when the upstream is closed before it can be read.
    async fn first_position(&self) -> Result<Option<i64>, ProcessorError> {
        let Processor { application_name, upstream, downstream, progress, .. } = &*self.processor;
        let position = self
            .patiently(|| downstream.recorder().validated_position(application_name, upstream))
            .await
            .map_err(|error| self.processor.error(error))?;
        let Some(position) = position else { return Ok(None) };
        let position = position.unwrap_or(0);
        progress.moved(position, position);
        Ok(Some(position))
    }

    /// Processes a page, and returns the position that is recorded then: the page's, or a later one if
    /// another instance is ahead; nothing when the upstream is closed before the end of the page.
    async fn process_page(&mut self, page: &Page) -> Result<Option<i64>, ProcessorError> {
        let application_name = self.processor.application_name.clone();
        let end = page.position.saturating_add(page.lag);
        let mut rest = page.notifications.as_slice();
        let mut failures = Failures::default();
        while !self.is_closed() {
            let batch = self.batch(&application_name, rest, page.position);
            let next = match self.processor.downstream.process(batch).await {
                Ok(handled) if is_possible(handled, batch) => Next::Handled(handled),
                Ok(handled) => return Err(self.impossible(handled, batch)),
                Err(failure) => self.after(failure, batch, &mut failures).await?,
            };
            let position = match next {
                Next::Again => continue,
                // One that is behind was rolled back, which the next attempt is refused for.
                Next::Recorded(position) if position <= self.position => continue,
                Next::Handled(handled) => {
                    failures = Failures::default();
                    self.committed(handled);
                    rest = rest.get(handled..).unwrap_or_default();
                    batch.position_after(handled)
                }
                Next::Recorded(position) => {
                    rest = beyond(rest, position);
                    position
                }
            };
            self.moved(position, end);
            if position >= page.position {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }

    /// What to hand over at a time.
    fn batch<'a>(
        &self,
        application_name: &'a str,
        rest: &'a [Notification],
        position: i64,
    ) -> NotificationBatch<'a> {
        let expected_position = Some(self.position);
        match rest.get(..self.largest) {
            Some(notifications) if notifications.len() < rest.len() => {
                let position = notifications.last().map_or(position, |last| last.id);
                NotificationBatch { application_name, notifications, position, expected_position }
            }
            _ => NotificationBatch { application_name, notifications: rest, position, expected_position },
        }
    }

    fn committed(&mut self, notifications: usize) {
        self.metrics.committed(notifications);
        self.processor.progress.processed_more(notifications);
        // After a failure the batches grow again.
        self.largest = self.largest.saturating_mul(2).min(self.processor.batch_size.get());
    }

    fn moved(&mut self, position: i64, end: i64) {
        self.position = position;
        let Processor { name, progress, .. } = &*self.processor;
        progress.moved(position, end);
        self.metrics.moved(position, progress.lag());
        tracing::trace!(processor = name, position, lag = progress.lag(), "processed");
    }

    async fn after(
        &mut self,
        failure: ConsumerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<Next, ProcessorError> {
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
    ) -> Result<Next, ProcessorError> {
        match error.conflict() {
            Some(Conflict::Tracking { application_name, .. })
                if application_name == batch.application_name =>
            {
                self.metrics.lost();
                self.stand_by().await
            }
            Some(_) if self.hand_over_less(batch.notifications.len() / 2) => Ok(Next::Again),
            // The handler has not seen what somebody else has recorded meanwhile: now it will.
            Some(_) => {
                failures.of_conflict += 1;
                match RetryPolicy::CONFLICT.pause_after(failures.of_conflict) {
                    Some(pause) => self.wait(pause).await,
                    None => return self.after_handler(0, error.into(), batch, failures).await,
                }
                Ok(Next::Again)
            }
            None if error.is_outcome_unknown() => {
                // A disk that fails every commit does so at once: without a pause this would never rest.
                self.pause(&error, failures).await;
                self.recorded().await
            }
            None if error.is_transient() => {
                self.pause(&error, failures).await;
                Ok(Next::Again)
            }
            None => Err(self.processor.error(error)),
        }
    }

    async fn after_handler(
        &mut self,
        index: usize,
        error: HandlerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<Next, ProcessorError> {
        if let Some(error) = error.downcast_ref::<PersistenceError>().filter(|error| error.is_transient()) {
            self.pause(error, failures).await;
            return Ok(Next::Again);
        }
        let Some(notification) = batch.notifications.get(index) else {
            let message = "a downstream failed at a notification that it was not given";
            return Err(self.processor.error(PersistenceError::internal(message).with_source(error)));
        };
        if self.hand_over_less(index) {
            return Ok(Next::Again);
        }
        self.metrics.failed();
        failures.of_handler += 1;
        if let Some(pause) = self.processor.retries.pause_after(failures.of_handler) {
            tracing::warn!(
                processor = self.processor.name,
                notification = notification.id,
                %error,
                "a notification could not be handled; trying again"
            );
            self.wait(pause).await;
            return Ok(Next::Again);
        }
        self.park(notification, error, batch, failures).await
    }

    async fn park(
        &mut self,
        notification: &Notification,
        error: HandlerError,
        batch: NotificationBatch<'_>,
        failures: &mut Failures,
    ) -> Result<Next, ProcessorError> {
        let notifications = std::slice::from_ref(notification);
        let position = if batch.notifications.len() == 1 { batch.position } else { notification.id };
        let alone = NotificationBatch { notifications, position, ..batch };
        let failed = error.to_string();
        match self.processor.downstream.park(alone, error).await {
            Ok(()) => {
                self.metrics.parked();
                tracing::error!(
                    processor = self.processor.name,
                    notification = notification.id,
                    error = failed,
                    "a notification could not be handled and was parked"
                );
                Ok(Next::Handled(1))
            }
            Err(ConsumerError::Handler { error: source, .. }) => Err(given_up(alone, notification, source)),
            // What is recorded in its place has no place either, however often it is tried.
            Err(ConsumerError::Recording(error))
                if is_of_version(&error) && failures.of_conflict > RetryPolicy::CONFLICT.max_retries =>
            {
                Err(given_up(alone, notification, error.into()))
            }
            // Boxed, because it may come to parking again.
            Err(ConsumerError::Recording(error)) => {
                Box::pin(self.after_recording(error, alone, failures)).await
            }
        }
    }

    /// Hands over fewer notifications at a time from now on, so that those before a failure are
    /// recorded; whether there are any.
    fn hand_over_less(&mut self, notifications: usize) -> bool {
        if notifications > 0 {
            self.largest = notifications;
        }
        notifications > 0
    }

    /// Another instance was faster: leaves the work to it for as long as it goes on.
    async fn stand_by(&self) -> Result<Next, ProcessorError> {
        let Processor { name, standby_pause, .. } = &*self.processor;
        let mut known = None;
        loop {
            let Next::Recorded(position) = self.recorded().await? else { return Ok(Next::Again) };
            if known.is_some_and(|known| position <= known) || self.is_closed() {
                return Ok(Next::Recorded(position));
            }
            tracing::info!(processor = name, position, "another instance is processing; standing by");
            known = Some(position);
            self.wait(*standby_pause).await;
        }
    }

    /// The position that is recorded now.
    async fn recorded(&self) -> Result<Next, ProcessorError> {
        let Processor { application_name, downstream, .. } = &*self.processor;
        let read = self.patiently(|| downstream.recorder().max_tracking_id(application_name)).await;
        let position = read.map_err(|error| self.processor.error(error))?;
        Ok(position.flatten().map_or(Next::Again, Next::Recorded))
    }

    /// Waits for a failure to pass, longer each time.
    async fn pause(&self, error: &PersistenceError, failures: &mut Failures) {
        failures.passing = failures.passing.saturating_add(1);
        tracing::warn!(processor = self.processor.name, %error, "processing failed; trying again");
        self.wait(RetryPolicy::TRANSIENT.pause_after(failures.passing).unwrap_or_default()).await;
    }

    /// Waits, though no longer than until the upstream is closed.
    async fn wait(&self, pause: Duration) {
        self.processor.upstream.commit_signal().closed_timeout(pause).await;
    }

    fn is_closed(&self) -> bool {
        self.processor.upstream.commit_signal().is_closed()
    }

    fn upstream_error(&self, error: PersistenceError) -> ProcessorError {
        let named = format!("application {:?}", self.processor.application_name);
        self.processor.error(if error.is_rolled_back() { error.about(named) } else { error })
    }

    fn impossible(&self, handled: usize, batch: NotificationBatch<'_>) -> ProcessorError {
        let given = batch.notifications.len();
        let message = format!("a downstream told that it handled {handled} of {given} notifications");
        self.processor.error(PersistenceError::internal(message))
    }

    /// Reads, again after failures that may pass; nothing when the upstream is closed meanwhile.
    async fn patiently<T, F>(&self, read: impl Fn() -> F) -> Result<Option<T>, PersistenceError>
    where
        F: Future<Output = Result<T, PersistenceError>>,
    {
        let mut failures = Failures::default();
        loop {
            match read().await {
                Err(_) if self.is_closed() => return Ok(None),
                Err(error) if error.is_transient() => self.pause(&error, &mut failures).await,
                result => return result.map(Some),
            }
        }
    }
}

/// Whether so many notifications of a batch can have been handled: one at least, where there is any.
fn is_possible(handled: usize, batch: NotificationBatch<'_>) -> bool {
    let given = batch.notifications.len();
    (given.min(1)..=given).contains(&handled)
}

fn is_of_version(error: &PersistenceError) -> bool {
    matches!(error.conflict(), Some(Conflict::Version { .. }))
}

fn given_up(
    batch: NotificationBatch<'_>,
    notification: &Notification,
    source: HandlerError,
) -> ProcessorError {
    ProcessorError::Handler {
        application_name: batch.application_name.to_owned(),
        notification: Box::new(notification.clone()),
        source,
    }
}

/// The notifications after a position.
fn beyond(notifications: &[Notification], position: i64) -> &[Notification] {
    let first = notifications.partition_point(|notification| notification.id <= position);
    notifications.get(first..).unwrap_or_default()
}

impl<R: fmt::Debug, D: fmt::Debug> fmt::Debug for Processor<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processor")
            .field("name", &self.name)
            .field("application_name", &self.application_name)
            .field("upstream", &self.upstream)
            .field("downstream", &self.downstream)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

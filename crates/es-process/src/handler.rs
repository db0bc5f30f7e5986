//! Handlers that return new events, and their recording.

use std::{
    collections::HashSet,
    fmt,
    future::{Future, ready},
};

use es_core::{
    ConsumerError, HandlerError, Notification, NotificationBatch, NotificationConsumer, ProcessRecorder,
    StoredEvent, uuid::Uuid,
};

/// The default number of events after which a commit takes no more notifications.
const EVENTS_PER_COMMIT: usize = 10_000;

/// Converts a notification to new events.
///
/// Implemented by every `FnMut(Notification) -> impl Future<Output = Result<Vec<StoredEvent>, E>>`:
/// functions, and `async` closures that do not change what they capture. A closure that does returns an
/// `async` block, and changes its state before it:
///
/// ```
/// use es_core::{Notification, PersistenceError};
/// # use es_popo::PopoProcessRecorder;
/// # use es_process::Processor;
/// # let (bank, audit) = (PopoProcessRecorder::new(), PopoProcessRecorder::new());
///
/// let mut calls = 0;
/// let handler = move |_notification: Notification| {
///     calls += 1;
///     async move {
///         println!("call {calls}");
///         Ok::<_, PersistenceError>(Vec::new())
///     }
/// };
/// let processor = Processor::new("audit", bank, audit, handler);
/// # let _ = processor;
/// ```
///
/// Implement it for a type of your own to change state while a notification is handled, or to
/// [park](Self::park) notifications.
///
/// It is called for one notification at a time, and for some more than once, after a crash for example:
/// the events that it returns are recorded once.
pub trait Handler: Send {
    /// The error of a notification that cannot be handled. A
    /// [transient](es_core::PersistenceError::is_transient)
    /// [`PersistenceError`](es_core::PersistenceError), also as the source of another error, does not count
    /// as a failure: the handler is called again.
    type Error: Into<HandlerError>;

    /// Returns the new events that follow from a notification, to be committed with the position.
    ///
    /// Several notifications may be handled before their events are committed together; see
    /// [`Processor::batch_size`](crate::Processor::batch_size).
    fn handle(
        &mut self,
        notification: Notification,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, Self::Error>> + Send;

    /// Returns the events to record for a notification that failed for the last time, such as one that
    /// reports the failure, so that the processor continues after it.
    ///
    /// The default implementation returns the failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another error: the processor stops at this notification.
    fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, HandlerError>> + Send {
        let _ = notification;
        ready(Err(failure))
    }
}

impl<F, T, E> Handler for F
where
    F: FnMut(Notification) -> T + Send,
    T: Future<Output = Result<Vec<StoredEvent>, E>> + Send,
    E: Into<HandlerError>,
{
    type Error = E;

    fn handle(
        &mut self,
        notification: Notification,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, E>> + Send {
        self(notification)
    }
}

/// Calls a [`Handler`], and records the events that it returns with a process recorder.
///
/// [`Processor::new`](crate::Processor::new) makes one. Make one yourself to wrap it in a consumer of your
/// own, for [`Processor::with_consumer`](crate::Processor::with_consumer).
pub struct HandlerConsumer<R, H> {
    recorder: R,
    handler: H,
    events_per_commit: usize,
    /// The notification that failed after others of its batch, whose events are recorded first.
    failed: Option<(i64, HandlerError)>,
}

impl<R: ProcessRecorder, H: Handler> HandlerConsumer<R, H> {
    /// Returns a consumer that records with `recorder` the events that `handler` returns.
    pub fn new(recorder: R, handler: H) -> Self {
        Self { recorder, handler, events_per_commit: EVENTS_PER_COMMIT, failed: None }
    }

    /// Sets the number of new events after which a commit takes no more notifications.
    pub(crate) fn events_per_commit(mut self, events: usize) -> Self {
        self.events_per_commit = events;
        self
    }

    async fn handle(&mut self, notifications: &[Notification]) -> Result<PendingEvents, ConsumerError> {
        let mut pending = PendingEvents::default();
        for (index, notification) in notifications.iter().enumerate() {
            if let Some((id, error)) = self.failed.take()
                && id == notification.id
            {
                return Err(ConsumerError::Handler { index, error });
            }
            let handled = self.handler.handle(notification.clone()).await.map_err(Into::into);
            match handled.and_then(verified) {
                Ok(events) => {
                    if !pending.add(events) || pending.events.len() >= self.events_per_commit {
                        break;
                    }
                }
                Err(error) if index == 0 => return Err(ConsumerError::Handler { index, error }),
                Err(error) => {
                    self.failed = Some((notification.id, error));
                    break;
                }
            }
        }
        Ok(pending)
    }
}

impl<R: ProcessRecorder, H: Handler> NotificationConsumer for HandlerConsumer<R, H> {
    type Recorder = R;

    fn recorder(&self) -> &R {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let pending = self.handle(batch.notifications).await?;
        let tracking = batch.tracking(pending.handled)?;
        self.recorder.insert_events_with_tracking(pending.events, tracking).await?;
        Ok(pending.handled)
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        let Some(notification) = batch.notifications.first() else { return Ok(()) };
        let parked = self.handler.park(notification.clone(), failure).await;
        let events = parked.map_err(|error| ConsumerError::Handler { index: 0, error })?;
        self.recorder.insert_events_with_tracking(events, batch.tracking(1)?).await?;
        Ok(())
    }
}

/// Verifies the events of one notification: a version that occurs in them twice is the handler's failure.
fn verified(events: Vec<StoredEvent>) -> Result<Vec<StoredEvent>, HandlerError> {
    StoredEvent::verify_unique_versions(&events)?;
    Ok(events)
}

/// The events of one commit, and the number of notifications that they follow from.
#[derive(Default)]
struct PendingEvents {
    events: Vec<StoredEvent>,
    versions: HashSet<(Uuid, i64)>,
    handled: usize,
}

impl PendingEvents {
    /// Adds the events of another notification. Returns false, and adds nothing, if one has the version of
    /// an earlier event: the handler has not read that event, and must be called again after the commit.
    fn add(&mut self, events: Vec<StoredEvent>) -> bool {
        let version = |event: &StoredEvent| (event.originator_id, event.originator_version);
        if self.handled > 0 && events.iter().any(|event| self.versions.contains(&version(event))) {
            return false;
        }
        self.versions.extend(events.iter().map(version));
        self.events.extend(events);
        self.handled += 1;
        true
    }
}

impl<R: fmt::Debug, H> fmt::Debug for HandlerConsumer<R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerConsumer").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

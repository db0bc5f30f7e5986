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

/// A commit of so many events takes no more notifications.
const EVENTS_PER_COMMIT: usize = 10_000;

/// Turns a notification into new events, or none.
///
/// Every `FnMut(Notification) -> impl Future<Output = Result<Vec<StoredEvent>, E>>` is one, an `async`
/// closure included. Implement it for a type of your own to park what cannot be handled.
///
/// It is called for one notification after the other. Called for the same one again, after a crash
/// for example, it should come to the same effect: what it returns is recorded once.
pub trait Handler: Send {
    /// Why a notification cannot be handled. A [`PersistenceError`](es_core::PersistenceError) that
    /// [may pass](es_core::PersistenceError::is_transient) does not count as a failure: the handler is
    /// called again.
    type Error: Into<HandlerError>;

    /// The new events that follow from a notification, to be recorded as one with the position.
    ///
    /// Several notifications may be handled before their events are committed together; see
    /// [`Processor::batch_size`](crate::Processor::batch_size).
    fn handle(
        &mut self,
        notification: &Notification,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, Self::Error>> + Send;

    /// Gives up on a notification that failed for the last time: returns events to record in its place,
    /// such as one that says what failed, so that the processor goes on after it.
    ///
    /// By default it returns the failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another: the processor stops at this notification.
    fn park(
        &mut self,
        notification: &Notification,
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
        notification: &Notification,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, E>> + Send {
        self(notification.clone())
    }
}

/// Calls a [`Handler`], and records the events that it returns with a process recorder.
///
/// [`Processor::new`](crate::Processor::new) makes one. Make one yourself to wrap it in a consumer of your own, for
/// [`Processor::with_consumer`](crate::Processor::with_consumer).
pub struct HandlerConsumer<R, H> {
    recorder: R,
    handler: H,
    /// A notification that failed behind others, which are recorded first.
    failed: Option<(i64, HandlerError)>,
}

impl<R: ProcessRecorder, H: Handler> HandlerConsumer<R, H> {
    /// Returns a consumer that records with `recorder` the events that `handler` returns.
    pub fn new(recorder: R, handler: H) -> Self {
        Self { recorder, handler, failed: None }
    }

    async fn gather(&mut self, notifications: &[Notification]) -> Result<Gathered, ConsumerError> {
        let mut gathered = Gathered::default();
        for (index, notification) in notifications.iter().enumerate() {
            if let Some((id, error)) = self.failed.take()
                && id == notification.id
            {
                return Err(ConsumerError::Handler { index, error });
            }
            match self.handler.handle(notification).await {
                Ok(events) => {
                    if !gathered.add(events) || gathered.events.len() >= EVENTS_PER_COMMIT {
                        break;
                    }
                }
                Err(error) if index == 0 => {
                    return Err(ConsumerError::Handler { index, error: error.into() });
                }
                Err(error) => {
                    self.failed = Some((notification.id, error.into()));
                    break;
                }
            }
        }
        Ok(gathered)
    }
}

impl<R: ProcessRecorder, H: Handler> NotificationConsumer for HandlerConsumer<R, H> {
    type Recorder = R;

    fn recorder(&self) -> &R {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let gathered = self.gather(batch.notifications).await?;
        let tracking = batch.tracking(gathered.handled)?;
        self.recorder.insert_events_with_tracking(gathered.events, tracking).await?;
        Ok(gathered.handled)
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        let Some(notification) = batch.notifications.first() else { return Ok(()) };
        let parked = self.handler.park(notification, failure).await;
        let events = parked.map_err(|error| ConsumerError::Handler { index: 0, error })?;
        self.recorder.insert_events_with_tracking(events, batch.tracking(1)?).await?;
        Ok(())
    }
}

/// What follows from the notifications that go together into one commit.
#[derive(Default)]
struct Gathered {
    events: Vec<StoredEvent>,
    places: HashSet<(Uuid, i64)>,
    handled: usize,
}

impl Gathered {
    /// Adds what follows from another notification, unless it claims a version that one before it has
    /// claimed: its handler did not see that one's events, and must be called again when they are
    /// recorded.
    fn add(&mut self, events: Vec<StoredEvent>) -> bool {
        let place = |event: &StoredEvent| (event.originator_id, event.originator_version);
        if self.handled > 0 && events.iter().any(|event| self.places.contains(&place(event))) {
            return false;
        }
        self.places.extend(events.iter().map(place));
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

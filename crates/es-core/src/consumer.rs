//! Consumers of notifications, as a processor uses them.

use std::{error::Error, fmt, future::Future, marker::PhantomData};

use crate::{Event, Mapper, Notification, PersistenceError, Tracking, TrackingRecorder, Transcoder};

/// The number of times that one batch is repeated after loading what its handlers lacked.
const MAX_LOADS: usize = 8;

/// Handles notifications of an upstream application, and commits their effects together with the
/// position.
///
/// A processor (of the crate `es-process`) follows the upstream and passes the notifications. After any
/// interruption, the effects of a notification are recorded exactly once, because the position that is
/// committed with them cannot be recorded twice.
pub trait NotificationConsumer: Send {
    /// The recorder of positions.
    type Recorder: TrackingRecorder;

    /// Returns the recorder of positions.
    fn recorder(&self) -> &Self::Recorder;

    /// Handles the first notifications of a batch, and commits their effects with
    /// [`NotificationBatch::tracking`]. Returns their number: at least 1, unless the batch is empty.
    ///
    /// An empty batch only has a position to record.
    ///
    /// # Errors
    /// [`ConsumerError::Handler`] if a notification cannot be handled; a conflict if the position, or a
    /// later one, is already recorded; [`RolledBack`](crate::ErrorKind::RolledBack) if the recorded
    /// position is before the expected one; any error of recording. Nothing is recorded then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// # Cancel safety
    /// Cancel safe: either everything is recorded or nothing.
    fn process(
        &mut self,
        batch: NotificationBatch<'_>,
    ) -> impl Future<Output = Result<usize, ConsumerError>> + Send;

    /// Parks the only notification of a batch, which cannot be handled: records the position, and a report
    /// of the failure if wanted, so that later notifications can be processed.
    ///
    /// # Errors
    /// [`ConsumerError::Handler`] with the failure if notifications are not to be parked; otherwise as
    /// [`process`](Self::process).
    ///
    /// # Cancel safety
    /// As [`process`](Self::process).
    fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> impl Future<Output = Result<(), ConsumerError>> + Send;
}

/// The error of a handler.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Consecutive notifications, to be handled in order.
#[derive(Clone, Copy, Debug)]
pub struct NotificationBatch<'a> {
    /// The name under which the position is recorded: the consumer's own.
    pub application_name: &'a str,
    /// The notifications.
    pub notifications: &'a [Notification],
    /// The position to record when all of them are handled: the last one's id, or a later id if only
    /// other topics follow.
    pub position: i64,
    /// The position that must be recorded before; see [`Tracking::after`].
    pub expected_position: Option<i64>,
}

impl NotificationBatch<'_> {
    /// Returns the tracking record for the first `handled` notifications. Recording it fails if another
    /// instance has processed any of them, or if the recorded position is not the expected one.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the application name is invalid, or the expected position is not
    /// before the first notification.
    pub fn tracking(&self, handled: usize) -> Result<Tracking, PersistenceError> {
        let position = self.position_after(handled);
        let first = self.notifications.first().map_or(position, |first| first.id);
        let tracking = Tracking::spanning(self.application_name, first, position)?;
        match self.expected_position {
            Some(expected) => tracking.after(expected),
            None => Ok(tracking),
        }
    }

    /// Returns the position after the first `handled` notifications; for 0 of several, the position right
    /// before the first.
    pub fn position_after(&self, handled: usize) -> i64 {
        let Some(next) = self.notifications.get(handled) else { return self.position };
        let last = handled.checked_sub(1).and_then(|last| self.notifications.get(last));
        last.map_or(next.id.saturating_sub(1), |last| last.id)
    }
}

/// The reason why a batch was not processed.
///
/// Exhaustive: either the handler failed or the recording; there is no third case.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A notification could not be handled.
    #[error("notification {index} of the batch, counted from 0, could not be handled")]
    Handler {
        /// The index of the notification in the batch.
        index: usize,
        /// The handler's error.
        #[source]
        error: HandlerError,
    },
    /// The effects could not be recorded.
    #[error("the effects of the batch could not be recorded")]
    Recording(#[from] PersistenceError),
}

/// Loads what a consumer lacks whose handlers decode events synchronously, such as a projection of events
/// with personal values.
///
/// If a handler fails with an [unloaded](PersistenceError::is_unloaded) error, which may be the source of its
/// own error, the mapper loads what the events of the batch lack, and the batch is repeated.
pub struct LoadingConsumer<C, T, E> {
    consumer: C,
    mapper: Mapper<T>,
    events: PhantomData<fn() -> E>,
}

impl<C, T, E> LoadingConsumer<C, T, E> {
    /// Wraps a consumer of events of type `E`. The mapper shares its transcodings with that of the handlers:
    /// it is a clone.
    pub fn new(consumer: C, mapper: Mapper<T>) -> Self {
        Self { consumer, mapper, events: PhantomData }
    }
}

impl<C: NotificationConsumer, T: Transcoder, E: Event> NotificationConsumer for LoadingConsumer<C, T, E> {
    type Recorder = C::Recorder;

    fn recorder(&self) -> &C::Recorder {
        self.consumer.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let mut result = self.consumer.process(batch).await;
        for _ in 0..MAX_LOADS {
            let Err(ConsumerError::Handler { index, error }) = &result else { break };
            if !PersistenceError::is_unloaded_in(&**error) {
                break;
            }
            let rest = batch.notifications.get(*index..).unwrap_or_default();
            self.mapper.preload::<E>(rest.iter().map(|notification| &notification.event)).await?;
            result = self.consumer.process(batch).await;
        }
        result
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        self.consumer.park(batch, failure).await
    }
}

impl<C: fmt::Debug, T, E> fmt::Debug for LoadingConsumer<C, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadingConsumer").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

//! Where the effects of notifications are recorded, together with the position: what a processor
//! needs to know of it.

use std::{error::Error, future::Future};

use crate::{Notification, PersistenceError, Tracking, TrackingRecorder};

/// Handles notifications of an upstream application, and records their effects and the position in
/// one commit.
///
/// A processor (of the crate `es-process`) follows the upstream and hands notifications over. Whatever
/// interrupts it, a notification's effects are there exactly once, because the position that is
/// committed with them refuses to be recorded twice.
pub trait NotificationConsumer: Send {
    /// Where positions are recorded.
    type Recorder: TrackingRecorder;

    /// The recorder of positions.
    fn recorder(&self) -> &Self::Recorder;

    /// Handles the first notifications of a batch, as many as it sees fit (all of them, or those
    /// that go together, but at least one if there is any), and commits their effects with
    /// [`NotificationBatch::tracking`]. Returns how many.
    ///
    /// A batch without notifications has a position to record, and nothing else.
    ///
    /// # Errors
    /// [`ConsumerError::Handler`] when a notification cannot be handled; a conflict when the position, or a
    /// later one, is already recorded; [`RolledBack`](crate::ErrorKind::RolledBack) when the recorded
    /// position is before the expected one; what recording fails with. Nothing is recorded then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// # Cancel safety
    /// When the future is dropped, everything is recorded, or nothing.
    fn process(
        &mut self,
        batch: NotificationBatch<'_>,
    ) -> impl Future<Output = Result<usize, ConsumerError>> + Send;

    /// Gives up on the only notification of a batch, which cannot be handled: records the position,
    /// with whatever is to be kept of the failure, so that those after it can be processed.
    ///
    /// # Errors
    /// [`ConsumerError::Handler`] with the failure itself when giving up is not wanted; otherwise as
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

/// Why a handler failed, in its own words.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Notifications that follow each other, to be handled in their order.
#[derive(Clone, Copy, Debug)]
pub struct NotificationBatch<'a> {
    /// The upstream application.
    pub application_name: &'a str,
    /// The notifications.
    pub notifications: &'a [Notification],
    /// The position to record when all of them are handled: the last one's id, or a later one when
    /// what follows it is of no interest.
    pub position: i64,
    /// The position that must be recorded until then; see [`Tracking::after`].
    pub expected_position: Option<i64>,
}

impl NotificationBatch<'_> {
    /// What to record when the first `handled` notifications are handled: it is refused when another
    /// instance has processed any of them, and when the recorded position is not the expected one.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) when the application's name is none, or the expected position is
    /// not before the first notification.
    pub fn tracking(&self, handled: usize) -> Result<Tracking, PersistenceError> {
        let position = self.position_after(handled);
        let first = self.notifications.first().map_or(position, |first| first.id);
        let tracking = Tracking::spanning(self.application_name, first, position)?;
        match self.expected_position {
            Some(expected) => tracking.after(expected),
            None => Ok(tracking),
        }
    }

    /// The position when the first `handled` notifications are handled. When none is, though there are
    /// any, it is right before the first.
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

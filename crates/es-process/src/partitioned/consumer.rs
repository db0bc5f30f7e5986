//! The consumer of one segment: selects its notifications, and commits only while the lease lasts.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use es_core::{
    Conflict, ConsumerError, HandlerError, Notification, NotificationBatch, NotificationConsumer,
    PersistenceError, Segment, TrackingRecorder,
};
use tokio::sync::Semaphore;

use super::lease::Lease;
use crate::Progress;

/// Returns the hash of the key of a notification.
pub(super) type KeyHash = Arc<dyn Fn(&Notification) -> i64 + Send + Sync>;

/// The parts that the segments of a worker share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) key_hash: KeyHash,
    pub(super) lease: Lease,
    /// The number of segments whose handlers may run at the same time.
    pub(super) permits: Arc<Semaphore>,
    pub(super) progress: Progress,
}

/// Passes the notifications of one segment to the consumer that was made for it. The position also moves past
/// the notifications of other segments.
pub struct SegmentConsumer<C> {
    consumer: C,
    segment: Segment,
    shared: Shared,
    /// True if the position has been moved to a later epoch, or the lease is over.
    is_fenced: Arc<AtomicBool>,
}

impl<C: NotificationConsumer> SegmentConsumer<C> {
    pub(super) fn new(consumer: C, segment: Segment, shared: Shared, is_fenced: Arc<AtomicBool>) -> Self {
        Self { consumer, segment, shared, is_fenced }
    }

    /// Returns the segment, as it was claimed.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    fn is_own(&self, notification: &Notification) -> bool {
        self.segment.contains((self.shared.key_hash)(notification))
    }

    /// Refuses to begin a commit without a lease. One that is under way is refused after the next claim.
    fn check_lease(&self) -> Result<(), ConsumerError> {
        if self.shared.lease.is_over() { Err(self.fenced("its lease is over").into()) } else { Ok(()) }
    }

    /// Determines whether a commit failed because the segment was taken over: its position has another name.
    async fn after_failure(&mut self, name: &str, error: ConsumerError) -> ConsumerError {
        let ConsumerError::Recording(recording) = &error else { return error };
        let is_position = matches!(recording.conflict(), Some(Conflict::Tracking { .. }));
        if (is_position || recording.is_rolled_back())
            && matches!(self.recorder().max_tracking_id(name).await, Ok(None))
        {
            return self.fenced("it was claimed by another worker, split or merged").into();
        }
        error
    }

    fn fenced(&self, reason: &str) -> PersistenceError {
        self.is_fenced.store(true, Ordering::SeqCst);
        let message =
            format!("segment {:016x} is not the worker's any more: {reason}", self.segment.first_hash);
        PersistenceError::interface(message)
    }
}

impl<C: NotificationConsumer> NotificationConsumer for SegmentConsumer<C> {
    type Recorder = C::Recorder;

    fn recorder(&self) -> &C::Recorder {
        self.consumer.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let is_own: Vec<bool> =
            batch.notifications.iter().map(|notification| self.is_own(notification)).collect();
        let index_of = |own: usize| is_own.iter().enumerate().filter(|(_, is_own)| **is_own).nth(own);
        let own = batch.notifications.iter().zip(&is_own).filter(|(_, is_own)| **is_own);
        let own: Vec<Notification> = own.map(|(notification, _)| notification.clone()).collect();
        let permits = Arc::clone(&self.shared.permits);
        // It is never closed.
        let _permit = if own.is_empty() { None } else { permits.acquire().await.ok() };
        self.check_lease()?;
        let segment = NotificationBatch { notifications: &own, ..started(batch) };
        match self.consumer.process(segment).await {
            Ok(handled) => {
                self.shared.progress.processed_more(handled);
                // The position after the handled ones: that of the last of them, or of the whole batch.
                Ok(match handled.checked_sub(1).filter(|_| handled < own.len()).and_then(index_of) {
                    Some((index, _)) => index + 1,
                    None => batch.notifications.len(),
                })
            }
            Err(ConsumerError::Handler { index, error }) => {
                let index = index_of(index).map_or(batch.notifications.len(), |(index, _)| index);
                Err(ConsumerError::Handler { index, error })
            }
            Err(error) => Err(self.after_failure(batch.application_name, error).await),
        }
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        self.check_lease()?;
        match self.consumer.park(started(batch), failure).await {
            Ok(()) => {
                self.shared.progress.processed_more(batch.notifications.len());
                Ok(())
            }
            Err(error) => Err(self.after_failure(batch.application_name, error).await),
        }
    }
}

/// Requires that a position is recorded: without one, the segment was taken over before the position was
/// read.
fn started(batch: NotificationBatch<'_>) -> NotificationBatch<'_> {
    let expected_position = batch.expected_position.map(|expected| match expected {
        0 => Segment::UNSTARTED,
        expected => expected,
    });
    NotificationBatch { expected_position, ..batch }
}

impl<C: fmt::Debug> fmt::Debug for SegmentConsumer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentConsumer")
            .field("consumer", &self.consumer)
            .field("segment", &self.segment)
            .finish_non_exhaustive()
    }
}

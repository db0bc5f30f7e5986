//! In-memory views that change with the position.

use std::{
    fmt,
    future::{Future, ready},
    mem,
    sync::{Arc, PoisonError, RwLock},
};

use es_core::{
    ConsumerError, HandlerError, Notification, NotificationBatch, NotificationConsumer, PersistenceError,
    Tracking,
};

use crate::{PopoProcessRecorder, PopoTrackingRecorder, recorder::Store};

/// Builds a view from notifications.
///
/// ```
/// use es_core::{HandlerError, Notification};
/// use es_popo::{PopoProjection, PopoTrackingRecorder};
///
/// /// The number of events.
/// struct Count;
///
/// impl PopoProjection for Count {
///     type View = u64;
///     type Error = HandlerError;
///
///     fn project(&mut self, count: &mut u64, _: &Notification) -> Result<(), HandlerError> {
///         *count += 1;
///         Ok(())
///     }
/// }
///
/// let recorder = PopoTrackingRecorder::new();
/// let projector = recorder.projector(Count, 0); // for a `Processor` of the crate `es-process`
/// let view = projector.view();
/// assert_eq!(*view.read(), 0);
/// ```
pub trait PopoProjection: Send {
    /// The view. It is cloned for each commit, so that a failure leaves it unchanged.
    type View: Clone + Send + Sync;
    /// The error of a notification that cannot be projected.
    type Error: Into<HandlerError>;

    /// Changes the view by a notification.
    ///
    /// # Errors
    /// If the notification cannot be projected. The view is unchanged.
    fn project(&mut self, view: &mut Self::View, notification: &Notification) -> Result<(), Self::Error>;

    /// Parks a notification that failed for the last time: changes the view accordingly, so that
    /// those after it can be projected. By default it returns the failure, and the processor stops.
    ///
    /// # Errors
    /// The failure, or another.
    fn park(
        &mut self,
        view: &mut Self::View,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        let _ = (view, notification);
        Err(failure)
    }
}

/// A projection, its view, and the recorder of its positions.
pub struct PopoProjector<R, P: PopoProjection> {
    recorder: R,
    store: Store,
    projection: P,
    view: PopoView<P::View>,
}

/// The view of a projector. Cloning returns another handle on the same view.
pub struct PopoView<V>(Arc<RwLock<Arc<V>>>);

impl<V> PopoView<V> {
    /// Returns the current view, consistent with its position. It does not change any more.
    pub fn read(&self) -> Arc<V> {
        // Only a pointer is assigned under the lock, which does not panic.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the view that was there, to be dropped when no lock is held: that can take long, and
    /// run code of the program's.
    #[must_use]
    fn replace(&self, view: V) -> Arc<V> {
        mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(view))
    }
}

macro_rules! projector {
    ($($Recorder:ident),+) => {$(
        impl $Recorder {
            /// Projects into a view that begins as `view`, for a processor to run.
            ///
            /// The view changes only when the position is recorded, atomically with it.
            pub fn projector<P: PopoProjection>(&self, projection: P, view: P::View) -> PopoProjector<Self, P> {
                PopoProjector {
                    recorder: self.clone(),
                    store: self.0.clone(),
                    projection,
                    view: PopoView(Arc::new(RwLock::new(Arc::new(view)))),
                }
            }
        }
    )+};
}

projector!(PopoTrackingRecorder, PopoProcessRecorder);

impl<R, P: PopoProjection> PopoProjector<R, P> {
    /// The view, to be read while a processor changes it.
    pub fn view(&self) -> PopoView<P::View> {
        self.view.clone()
    }

    fn commit(&self, view: P::View, tracking: Tracking) -> Result<(), PersistenceError> {
        let mut replaced = None;
        self.store
            .table()?
            .insert_with(Vec::new(), Some(tracking), || replaced = Some(self.view.replace(view)))?;
        Ok(())
    }

    fn project(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        let mut view = P::View::clone(&self.view.read());
        for (index, notification) in batch.notifications.iter().enumerate() {
            let projected = self.projection.project(&mut view, notification);
            projected.map_err(|error| ConsumerError::Handler { index, error: error.into() })?;
        }
        let handled = batch.notifications.len();
        self.commit(view, batch.tracking(handled)?)?;
        Ok(handled)
    }

    fn give_up(&mut self, batch: NotificationBatch<'_>, failure: HandlerError) -> Result<(), ConsumerError> {
        let Some(notification) = batch.notifications.first() else { return Ok(()) };
        let mut view = P::View::clone(&self.view.read());
        let parked = self.projection.park(&mut view, notification, failure);
        parked.map_err(|error| ConsumerError::Handler { index: 0, error })?;
        Ok(self.commit(view, batch.tracking(1)?)?)
    }
}

impl<R: es_core::TrackingRecorder, P: PopoProjection> NotificationConsumer for PopoProjector<R, P> {
    type Recorder = R;

    fn recorder(&self) -> &R {
        &self.recorder
    }

    fn process(
        &mut self,
        batch: NotificationBatch<'_>,
    ) -> impl Future<Output = Result<usize, ConsumerError>> + Send {
        ready(self.project(batch))
    }

    fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> impl Future<Output = Result<(), ConsumerError>> + Send {
        ready(self.give_up(batch, failure))
    }
}

impl<V> Clone for PopoView<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V: fmt::Debug> fmt::Debug for PopoView<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PopoView").field(&self.read()).finish()
    }
}

impl<R: fmt::Debug, P: PopoProjection> fmt::Debug for PopoProjector<R, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopoProjector").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

//! The object-safe versions of the recorder traits, for recorders that are chosen at run time.
//!
//! Every recorder has an object-safe version by blanket implementation, and an `Arc` of one is a recorder
//! again: `Arc<dyn DynProcessRecorder>` implements `ProcessRecorder`. Futures are boxed only here.

use std::{fmt::Debug, future::Future, pin::Pin, sync::Arc};

use uuid::Uuid;

use crate::{
    AggregateRecorder, ApplicationRecorder, EventKey, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, SegmentChange, SegmentRecorder, Segments, Signal,
    StateMaintenance, StateReplacement, StoredEvent, Tracking, TrackingRecorder,
};

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, PersistenceError>> + Send + 'a>>;

/// The object-safe version of [`Recorder`].
pub trait DynRecorder: Debug + Send + Sync {
    /// See [`Recorder::close`].
    fn close_dyn(&self) -> BoxFuture<'_, ()>;
}

/// The object-safe version of [`AggregateRecorder`].
pub trait DynAggregateRecorder: DynRecorder {
    /// See [`AggregateRecorder::insert_events`].
    fn insert_events_dyn(&self, events: Vec<StoredEvent>) -> BoxFuture<'_, Vec<i64>>;
    /// See [`AggregateRecorder::select_events`].
    fn select_events_dyn(&self, originator_id: Uuid, range: EventRange) -> BoxFuture<'_, Vec<StoredEvent>>;
}

/// The object-safe version of [`ApplicationRecorder`].
pub trait DynApplicationRecorder: DynAggregateRecorder {
    /// See [`ApplicationRecorder::select_notifications`].
    fn select_notifications_dyn(&self, selection: NotificationSelection) -> BoxFuture<'_, Vec<Notification>>;
    /// See [`ApplicationRecorder::max_notification_id`].
    fn max_notification_id_dyn(&self) -> BoxFuture<'_, Option<i64>>;
    /// See [`ApplicationRecorder::commit_signal`].
    fn commit_signal_dyn(&self) -> &Signal;
}

/// The object-safe version of [`TrackingRecorder`].
pub trait DynTrackingRecorder: DynRecorder {
    /// See [`TrackingRecorder::insert_tracking`].
    fn insert_tracking_dyn(&self, tracking: Tracking) -> BoxFuture<'_, ()>;
    /// See [`TrackingRecorder::max_tracking_id`].
    fn max_tracking_id_dyn<'a>(&'a self, application_name: &'a str) -> BoxFuture<'a, Option<i64>>;
    /// See [`TrackingRecorder::has_tracking_id`].
    fn has_tracking_id_dyn<'a>(
        &'a self,
        application_name: &'a str,
        notification_id: i64,
    ) -> BoxFuture<'a, bool>;
    /// See [`TrackingRecorder::tracking_signal`].
    fn tracking_signal_dyn(&self) -> &Signal;
}

/// The object-safe version of [`ProcessRecorder`].
pub trait DynProcessRecorder: DynApplicationRecorder + DynTrackingRecorder {
    /// See [`ProcessRecorder::insert_events_with_tracking`].
    fn insert_events_with_tracking_dyn(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> BoxFuture<'_, Vec<i64>>;
}

/// The object-safe version of [`SegmentRecorder`].
pub trait DynSegmentRecorder: DynTrackingRecorder {
    /// See [`SegmentRecorder::segments`].
    fn segments_dyn<'a>(&'a self, consumer_name: &'a str) -> BoxFuture<'a, Segments>;
    /// See [`SegmentRecorder::change_segments`].
    fn change_segments_dyn<'a>(
        &'a self,
        consumer_name: &'a str,
        change: SegmentChange,
    ) -> BoxFuture<'a, Segments>;
}

/// The object-safe version of [`StateMaintenance`].
pub trait DynStateMaintenance: DynAggregateRecorder {
    /// See [`StateMaintenance::select_by_key`].
    fn select_by_key_dyn(&self, after: Option<EventKey>, limit: usize) -> BoxFuture<'_, Vec<StoredEvent>>;
    /// See [`StateMaintenance::replace_states`].
    fn replace_states_dyn(&self, replacements: Vec<StateReplacement>) -> BoxFuture<'_, usize>;
}

impl<R: Recorder> DynRecorder for R {
    fn close_dyn(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.close())
    }
}

impl<R: AggregateRecorder> DynAggregateRecorder for R {
    fn insert_events_dyn(&self, events: Vec<StoredEvent>) -> BoxFuture<'_, Vec<i64>> {
        Box::pin(self.insert_events(events))
    }

    fn select_events_dyn(&self, originator_id: Uuid, range: EventRange) -> BoxFuture<'_, Vec<StoredEvent>> {
        Box::pin(self.select_events(originator_id, range))
    }
}

impl<R: ApplicationRecorder> DynApplicationRecorder for R {
    fn select_notifications_dyn(&self, selection: NotificationSelection) -> BoxFuture<'_, Vec<Notification>> {
        Box::pin(self.select_notifications(selection))
    }

    fn max_notification_id_dyn(&self) -> BoxFuture<'_, Option<i64>> {
        Box::pin(self.max_notification_id())
    }

    fn commit_signal_dyn(&self) -> &Signal {
        self.commit_signal()
    }
}

impl<R: TrackingRecorder> DynTrackingRecorder for R {
    fn insert_tracking_dyn(&self, tracking: Tracking) -> BoxFuture<'_, ()> {
        Box::pin(self.insert_tracking(tracking))
    }

    fn max_tracking_id_dyn<'a>(&'a self, application_name: &'a str) -> BoxFuture<'a, Option<i64>> {
        Box::pin(self.max_tracking_id(application_name))
    }

    fn has_tracking_id_dyn<'a>(
        &'a self,
        application_name: &'a str,
        notification_id: i64,
    ) -> BoxFuture<'a, bool> {
        Box::pin(self.has_tracking_id(application_name, notification_id))
    }

    fn tracking_signal_dyn(&self) -> &Signal {
        self.tracking_signal()
    }
}

impl<R: ProcessRecorder> DynProcessRecorder for R {
    fn insert_events_with_tracking_dyn(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> BoxFuture<'_, Vec<i64>> {
        Box::pin(self.insert_events_with_tracking(events, tracking))
    }
}

impl<R: SegmentRecorder> DynSegmentRecorder for R {
    fn segments_dyn<'a>(&'a self, consumer_name: &'a str) -> BoxFuture<'a, Segments> {
        Box::pin(self.segments(consumer_name))
    }

    fn change_segments_dyn<'a>(
        &'a self,
        consumer_name: &'a str,
        change: SegmentChange,
    ) -> BoxFuture<'a, Segments> {
        Box::pin(self.change_segments(consumer_name, change))
    }
}

impl<R: StateMaintenance> DynStateMaintenance for R {
    fn select_by_key_dyn(&self, after: Option<EventKey>, limit: usize) -> BoxFuture<'_, Vec<StoredEvent>> {
        Box::pin(self.select_by_key(after, limit))
    }

    fn replace_states_dyn(&self, replacements: Vec<StateReplacement>) -> BoxFuture<'_, usize> {
        Box::pin(self.replace_states(replacements))
    }
}

// Below, `self.as_ref()` is needed: by the blanket implementations above, an `Arc` of an object-safe version
// has these methods itself, and calling them would recurse without end.

impl<R: DynRecorder + ?Sized> Recorder for Arc<R> {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.as_ref().close_dyn().await
    }
}

impl<R: DynAggregateRecorder + ?Sized> AggregateRecorder for Arc<R> {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.as_ref().insert_events_dyn(events).await
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.as_ref().select_events_dyn(originator_id, range).await
    }
}

impl<R: DynApplicationRecorder + ?Sized> ApplicationRecorder for Arc<R> {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.as_ref().select_notifications_dyn(selection).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.as_ref().max_notification_id_dyn().await
    }

    fn commit_signal(&self) -> &Signal {
        self.as_ref().commit_signal_dyn()
    }
}

impl<R: DynTrackingRecorder + ?Sized> TrackingRecorder for Arc<R> {
    async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
        self.as_ref().insert_tracking_dyn(tracking).await
    }

    async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.as_ref().max_tracking_id_dyn(application_name).await
    }

    async fn has_tracking_id(
        &self,
        application_name: &str,
        notification_id: i64,
    ) -> Result<bool, PersistenceError> {
        self.as_ref().has_tracking_id_dyn(application_name, notification_id).await
    }

    fn tracking_signal(&self) -> &Signal {
        self.as_ref().tracking_signal_dyn()
    }
}

impl<R: DynProcessRecorder + ?Sized> ProcessRecorder for Arc<R> {
    async fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.as_ref().insert_events_with_tracking_dyn(events, tracking).await
    }
}

impl<R: DynSegmentRecorder + ?Sized> SegmentRecorder for Arc<R> {
    async fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
        self.as_ref().segments_dyn(consumer_name).await
    }

    async fn change_segments(
        &self,
        consumer_name: &str,
        change: SegmentChange,
    ) -> Result<Segments, PersistenceError> {
        self.as_ref().change_segments_dyn(consumer_name, change).await
    }
}

impl<R: DynStateMaintenance + ?Sized> StateMaintenance for Arc<R> {
    async fn select_by_key(
        &self,
        after: Option<EventKey>,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.as_ref().select_by_key_dyn(after, limit).await
    }

    async fn replace_states(&self, replacements: Vec<StateReplacement>) -> Result<usize, PersistenceError> {
        self.as_ref().replace_states_dyn(replacements).await
    }
}

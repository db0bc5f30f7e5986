//! A recorder whose operations wait.

use std::time::Duration;

use es_core::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, ApplicationRecorderExt, ConsumerLag,
    EventRange, Notification, NotificationSelection, PersistenceError, ProcessRecorder, StoredEvent, Topic,
    Tracking, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};

use crate::{Iter, Runtime};

/// A recorder of any tier whose operations wait. Made by [`Runtime::recorder`].
///
/// Each method is that of the same name of the recorder, with its errors, and with an error of kind
/// [`Interface`](es_core::ErrorKind::Interface) inside of a tokio runtime.
#[derive(Clone, Debug)]
pub struct Recorder<R> {
    runtime: Runtime,
    inner: R,
}

impl Runtime {
    /// Makes the operations of a recorder wait.
    pub fn recorder<R>(&self, recorder: R) -> Recorder<R> {
        Recorder { runtime: self.clone(), inner: recorder }
    }
}

impl<R> Recorder<R> {
    /// Returns the recorder itself.
    pub fn inner(&self) -> &R {
        &self.inner
    }
}

impl<R: es_core::Recorder> Recorder<R> {
    /// Closes the recorder.
    ///
    /// # Errors
    /// As [`es_core::Recorder::close`].
    pub fn close(&self) -> Result<(), PersistenceError> {
        self.runtime.run(self.inner.close())
    }
}

impl<R: AggregateRecorder> Recorder<R> {
    /// Records events atomically.
    ///
    /// # Errors
    /// As [`AggregateRecorder::insert_events`].
    pub fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.runtime.run(self.inner.insert_events(events))
    }

    /// Returns the events of an aggregate within a range.
    ///
    /// # Errors
    /// As [`AggregateRecorder::select_events`].
    pub fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.runtime.run(self.inner.select_events(originator_id, range))
    }

    /// Iterates over the events of an aggregate within a range, in bounded memory.
    pub fn stream_events(&self, originator_id: Uuid, range: EventRange) -> Iter<'_, StoredEvent> {
        self.runtime.iter(self.inner.stream_events(originator_id, range))
    }
}

impl<R: ApplicationRecorder> Recorder<R> {
    /// Returns the notifications of a selection.
    ///
    /// # Errors
    /// As [`ApplicationRecorder::select_notifications`].
    pub fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.runtime.run(self.inner.select_notifications(selection))
    }

    /// Returns the highest notification id.
    ///
    /// # Errors
    /// As [`ApplicationRecorder::max_notification_id`].
    pub fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.runtime.run(self.inner.max_notification_id())
    }

    /// Iterates over the notifications of a selection, in bounded memory.
    pub fn stream_notifications(&self, selection: NotificationSelection) -> Iter<'_, Notification> {
        self.runtime.iter(self.inner.stream_notifications(selection))
    }

    /// Iterates over the notifications after `position`, first recorded and then live ones; only those with
    /// one of `topics`, unless that is empty. It ends when the recorder is closed.
    pub fn subscribe<'a>(&self, position: i64, topics: impl AsRef<[Topic]>) -> Iter<'a, Notification>
    where
        R: Clone + 'a,
    {
        self.runtime.iter(self.inner.subscribe(position, topics).into_stream())
    }
}

impl<R: TrackingRecorder> Recorder<R> {
    /// Records the position of a consumer.
    ///
    /// # Errors
    /// As [`TrackingRecorder::insert_tracking`].
    pub fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
        self.runtime.run(self.inner.insert_tracking(tracking))
    }

    /// Returns the position of a consumer.
    ///
    /// # Errors
    /// As [`TrackingRecorder::max_tracking_id`].
    pub fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.runtime.run(self.inner.max_tracking_id(application_name))
    }

    /// Returns whether a consumer has processed a notification.
    ///
    /// # Errors
    /// As [`TrackingRecorder::has_tracking_id`].
    pub fn has_tracking_id(
        &self,
        application_name: &str,
        notification_id: i64,
    ) -> Result<bool, PersistenceError> {
        self.runtime.run(self.inner.has_tracking_id(application_name, notification_id))
    }

    /// Waits until a consumer has processed a notification.
    ///
    /// # Errors
    /// As [`TrackingRecorderExt::wait`].
    pub fn wait(
        &self,
        application_name: &str,
        notification_id: i64,
        timeout: Duration,
    ) -> Result<(), PersistenceError> {
        self.runtime.run(self.inner.wait(application_name, notification_id, timeout))
    }

    /// Returns the position of a consumer beside the end of its upstream.
    ///
    /// # Errors
    /// As [`TrackingRecorderExt::consumer_lag`].
    pub fn consumer_lag<U: ApplicationRecorder>(
        &self,
        application_name: &str,
        upstream: &U,
    ) -> Result<ConsumerLag, PersistenceError> {
        self.runtime.run(self.inner.consumer_lag(application_name, upstream))
    }
}

impl<R: ProcessRecorder> Recorder<R> {
    /// Records events together with the position of a consumer.
    ///
    /// # Errors
    /// As [`ProcessRecorder::insert_events_with_tracking`].
    pub fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.runtime.run(self.inner.insert_events_with_tracking(events, tracking))
    }
}

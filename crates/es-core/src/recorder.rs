//! What a backend implements: three tiers of recorder, and tracking.
//!
//! The traits are minimal; what users like to call stands in the extension traits.

use std::{fmt::Debug, future::Future};

use uuid::Uuid;

use crate::{
    EventRange, Notification, NotificationSelection, PersistenceError, Signal, StoredEvent, Tracking,
};

/// What all recorders have in common.
pub trait Recorder: Debug + Send + Sync {
    /// Closes the datastore, for all recorders that share it: waits for accepted writes, then releases
    /// resources.
    ///
    /// Later calls of other methods fail with an [`Interface`](crate::ErrorKind::Interface) error.
    /// Closing again succeeds. Dropping the last handle does the same without waiting.
    ///
    /// # Errors
    /// When the datastore cannot be closed.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the closing.
    fn close(&self) -> impl Future<Output = Result<(), PersistenceError>> + Send;
}

/// Keeps the events of aggregates, each at a version of its own.
pub trait AggregateRecorder: Recorder {
    /// Records the events as one: all of them, or none.
    ///
    /// Returns the notification ids, in the order of the events, where the recorder gives any (an
    /// application or process recorder), and nothing otherwise. Recording nothing is fine.
    ///
    /// # Errors
    /// [`Integrity`](crate::ErrorKind::Integrity) with the [`Conflict`](crate::Conflict) when an
    /// aggregate already has an event of such a version; nothing is recorded then.
    ///
    /// # Cancel safety
    /// When the future is dropped, the events are recorded whole or not at all.
    fn insert_events(
        &self,
        events: Vec<StoredEvent>,
    ) -> impl Future<Output = Result<Vec<i64>, PersistenceError>> + Send;

    /// The recorded events of an aggregate within a range, in the order of their versions.
    ///
    /// A recorder that copies states ends early at [`max_bytes`](EventRange::max_bytes), and only if the
    /// states that it returns have so many bytes.
    ///
    /// # Errors
    /// When the datastore cannot be read, or holds what cannot be an event.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, PersistenceError>> + Send;
}

/// Keeps events in one total order, so that readers can follow them.
///
/// A reader that asks again and again for what comes after the last id it has seen gets every
/// committed event, once, in the order of ids.
pub trait ApplicationRecorder: AggregateRecorder {
    /// The recorded events in their total order.
    ///
    /// Nothing ever appears below the last id of a page. And when `stop` is an id that was
    /// [the highest](Self::max_notification_id) before, a page with fewer than `limit` notifications
    /// has all of the selection: whoever filters by topics may go on after `stop`. A page of a selection
    /// with [`max_bytes`](NotificationSelection::max_bytes) does so if its states have fewer bytes.
    /// [`is_filled_by`](NotificationSelection::is_filled_by) tells a page that is full in either way.
    ///
    /// A recorder that copies states ends a page early at `max_bytes`, never before, and has at least one
    /// notification in it.
    ///
    /// # Errors
    /// When the datastore cannot be read, or holds what cannot be an event.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> impl Future<Output = Result<Vec<Notification>, PersistenceError>> + Send;

    /// The highest notification id that is recorded.
    ///
    /// While others write, an event with a lower id may still be about to appear: this is no
    /// position to read from, only one to compare with, or to
    /// [stop](NotificationSelection::stop) at.
    ///
    /// # Errors
    /// When the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn max_notification_id(&self) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send;

    /// Tells when something was recorded, and under which topics; closed with the recorder.
    ///
    /// It is woken by every commit of the process, after the commit and before the caller is told.
    /// Where others can write too, something looks for what they have written while there are
    /// listeners.
    fn commit_signal(&self) -> &Signal;
}

/// Keeps how far upstream notifications have been processed.
pub trait TrackingRecorder: Recorder {
    /// Records a position.
    ///
    /// # Errors
    /// [`Integrity`](crate::ErrorKind::Integrity) with the [`Conflict`](crate::Conflict) when the
    /// position recorded for that application is not before [the first](Tracking::first) of the
    /// notifications that are accounted for, or is after the [expected](Tracking::after) one;
    /// [`RolledBack`](crate::ErrorKind::RolledBack) when it is before the expected one. Nothing is
    /// recorded then. See [`Tracking::validate`].
    ///
    /// # Cancel safety
    /// When the future is dropped, the position is recorded or not.
    fn insert_tracking(
        &self,
        tracking: Tracking,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send;

    /// The position recorded for an upstream application.
    ///
    /// # Errors
    /// When the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn max_tracking_id(
        &self,
        application_name: &str,
    ) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send;

    /// Whether the notification `notification_id` of an upstream application, or a later one, has
    /// been processed.
    ///
    /// # Errors
    /// When the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    fn has_tracking_id(
        &self,
        application_name: &str,
        notification_id: i64,
    ) -> impl Future<Output = Result<bool, PersistenceError>> + Send {
        async move {
            let recorded = self.max_tracking_id(application_name).await?;
            Ok(recorded.is_some_and(|recorded| recorded >= notification_id))
        }
    }

    /// Tells when positions were recorded, and of which applications; closed with the recorder. As
    /// [`commits`](ApplicationRecorder::commit_signal) tells of events.
    fn tracking_signal(&self) -> &Signal;
}

/// Records events together with the position of the notification that caused them, which makes
/// processing exactly-once.
pub trait ProcessRecorder: ApplicationRecorder + TrackingRecorder {
    /// Records the events and the position as one: all of it, or nothing.
    ///
    /// The events may be none: the notification had no consequences.
    ///
    /// # Errors
    /// As [`insert_events`](AggregateRecorder::insert_events) and
    /// [`insert_tracking`](TrackingRecorder::insert_tracking); where both the position and a version
    /// collide, the position is named.
    ///
    /// # Cancel safety
    /// When the future is dropped, everything is recorded, or nothing.
    fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> impl Future<Output = Result<Vec<i64>, PersistenceError>> + Send;
}

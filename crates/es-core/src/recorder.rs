//! The traits that a backend implements: three tiers of recorder, and tracking.
//!
//! The traits are minimal; extension traits add streams, subscriptions and waiting.

use std::{fmt::Debug, future::Future};

use uuid::Uuid;

use crate::{
    EventRange, Notification, NotificationSelection, PersistenceError, Signal, StoredEvent, Tracking,
};

/// The common part of all recorders.
pub trait Recorder: Debug + Send + Sync {
    /// Closes this recorder and its clones: ends its subscriptions and waits, and waits for accepted writes.
    ///
    /// The datastore stays open, and so do its other recorders, also those of the same table: to close all of
    /// them and release the connections, close the datastore. Later calls of other methods fail with an
    /// [`Interface`](crate::ErrorKind::Interface) error. Closing again succeeds.
    ///
    /// # Errors
    /// If the recorder cannot be closed.
    ///
    /// # Cancel safety
    /// A dropped future does not stop the closing.
    fn close(&self) -> impl Future<Output = Result<(), PersistenceError>> + Send;
}

/// Stores the events of aggregates, each with a unique version.
pub trait AggregateRecorder: Recorder {
    /// Records the events atomically. An empty list is accepted.
    ///
    /// Returns the notification ids in the order of the events; an empty list from a recorder without
    /// notifications (an aggregate recorder).
    ///
    /// # Errors
    /// [`Integrity`](crate::ErrorKind::Integrity) with the [`Conflict`](crate::Conflict) if an aggregate
    /// already has an event with one of the versions; [`Programming`](crate::ErrorKind::Programming) if the
    /// batch itself has a version [twice](StoredEvent::verify_unique_versions). Nothing is recorded then.
    ///
    /// # Cancel safety
    /// Cancel safe: either all events are recorded or none.
    fn insert_events(
        &self,
        events: Vec<StoredEvent>,
    ) -> impl Future<Output = Result<Vec<i64>, PersistenceError>> + Send;

    /// Returns the recorded events of an aggregate within a range, ordered by version.
    ///
    /// A recorder that copies states ends early at [`max_bytes`](EventRange::max_bytes), and never before
    /// the returned states have that size.
    ///
    /// # Errors
    /// If the datastore cannot be read, or contains a row that is not an event.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, PersistenceError>> + Send;
}

/// Stores events in one total order, so that readers can follow them.
///
/// A reader that repeatedly selects the notifications after the last id it has read gets every committed
/// event, once, ordered by id.
pub trait ApplicationRecorder: AggregateRecorder {
    /// Returns the recorded events in their total order.
    ///
    /// - No event ever appears later with an id below the last id of a page.
    /// - If `stop` is an id that was the [highest](Self::max_notification_id) before, a page that is not
    ///   [full](NotificationSelection::is_filled_by) is the whole rest of the selection: a reader that
    ///   filters by topics may continue after `stop`.
    /// - A recorder that copies states ends a page early at
    ///   [`max_bytes`](NotificationSelection::max_bytes), never before, and with at least one notification.
    ///
    /// # Errors
    /// If the datastore cannot be read, or contains a row that is not an event.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> impl Future<Output = Result<Vec<Notification>, PersistenceError>> + Send;

    /// Returns the highest recorded notification id.
    ///
    /// While others write, an event with a lower id may still become visible. Do not read from this
    /// position: only compare with it, or [stop](NotificationSelection::stop) at it.
    ///
    /// # Errors
    /// If the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn max_notification_id(&self) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send;

    /// Returns the signal that fires after each commit, by topic; it is closed with the recorder.
    ///
    /// It fires for every commit of this process, after the commit and before the call returns. Commits of
    /// other processes are found by polling while there are listeners.
    fn commit_signal(&self) -> &Signal;
}

/// Stores the positions up to which consumers have processed the notifications of their upstreams.
///
/// A position is recorded under a name of the consumer's own; see [`Tracking`].
pub trait TrackingRecorder: Recorder {
    /// Records a position.
    ///
    /// # Errors
    /// [`Integrity`](crate::ErrorKind::Integrity) with the [`Conflict`](crate::Conflict) if the recorded
    /// position is not before the [first notification](Tracking::first_notification_id) of the record, or
    /// is after the [expected](Tracking::after) position; [`RolledBack`](crate::ErrorKind::RolledBack) if
    /// it is before the expected position. Nothing is recorded then. See [`Tracking::validate`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn insert_tracking(
        &self,
        tracking: Tracking,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send;

    /// Returns the position that is recorded under a name.
    ///
    /// # Errors
    /// If the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn max_tracking_id(
        &self,
        application_name: &str,
    ) -> impl Future<Output = Result<Option<i64>, PersistenceError>> + Send;

    /// Returns whether the position that is recorded under a name is `notification_id` or higher.
    ///
    /// # Errors
    /// If the datastore cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn has_tracking_id(
        &self,
        application_name: &str,
        notification_id: i64,
    ) -> impl Future<Output = Result<bool, PersistenceError>> + Send {
        async move { Ok(self.max_tracking_id(application_name).await? >= Some(notification_id)) }
    }

    /// Returns the signal that fires after each recorded position, by application name; it is closed with
    /// the recorder. See [`commit_signal`](ApplicationRecorder::commit_signal).
    fn tracking_signal(&self) -> &Signal;
}

/// Records events and the position of the notification that caused them in one commit: exactly-once
/// processing.
pub trait ProcessRecorder: ApplicationRecorder + TrackingRecorder {
    /// Records the events and the position atomically. The list of events may be empty.
    ///
    /// # Errors
    /// As [`insert_events`](AggregateRecorder::insert_events) and
    /// [`insert_tracking`](TrackingRecorder::insert_tracking); if both the position and a version
    /// conflict, the error names the position.
    ///
    /// # Cancel safety
    /// Cancel safe: either everything is recorded or nothing.
    fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> impl Future<Output = Result<Vec<i64>, PersistenceError>> + Send;
}

//! The recorders: which tier offers what.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, Signal, StoredEvent, Tracking, TrackingRecorder,
};
use uuid::Uuid;

use crate::store::Store;

/// Keeps events, or snapshots, of aggregates in one table.
///
/// Made by [`PostgresDatastore::aggregate_recorder`](crate::PostgresDatastore::aggregate_recorder).
/// Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct PostgresAggregateRecorder(pub(crate) Arc<Store>);

/// Keeps events in one total order.
///
/// Made by
/// [`PostgresDatastore::application_recorder`](crate::PostgresDatastore::application_recorder).
/// Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct PostgresApplicationRecorder(pub(crate) Arc<Store>);

/// Keeps events in one total order, and tracking records in the same commit.
///
/// Made by [`PostgresDatastore::process_recorder`](crate::PostgresDatastore::process_recorder).
/// Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct PostgresProcessRecorder(pub(crate) Arc<Store>);

/// Keeps tracking records alone.
///
/// Made by [`PostgresDatastore::tracking_recorder`](crate::PostgresDatastore::tracking_recorder).
/// Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct PostgresTrackingRecorder(pub(crate) Arc<Store>);

macro_rules! recorder {
    ($($name:ident),+) => {$(
        impl Recorder for $name {
            async fn close(&self) -> Result<(), PersistenceError> {
                self.0.datastore.close().await
            }
        }
    )+};
}

macro_rules! aggregate_recorder {
    ($($name:ident),+) => {$(
        impl AggregateRecorder for $name {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                self.0.append(events, None).await
            }

            async fn select_events(
                &self,
                originator_id: Uuid,
                range: EventRange,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                self.0.select_events(originator_id, range).await
            }
        }
    )+};
}

macro_rules! application_recorder {
    ($($name:ident),+) => {$(
        impl ApplicationRecorder for $name {
            async fn select_notifications(
                &self,
                selection: NotificationSelection,
            ) -> Result<Vec<Notification>, PersistenceError> {
                self.0.select_notifications(&selection).await
            }

            async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
                self.0.max_notification_id().await
            }

            fn commit_signal(&self) -> &Signal {
                &self.0.signals.commits
            }
        }
    )+};
}

macro_rules! tracking_recorder {
    ($($name:ident),+) => {$(
        impl TrackingRecorder for $name {
            async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
                self.0.append(Vec::new(), Some(tracking)).await.map(drop)
            }

            async fn max_tracking_id(
                &self,
                application_name: &str,
            ) -> Result<Option<i64>, PersistenceError> {
                self.0.max_tracking_id(application_name).await
            }

            fn tracking_signal(&self) -> &Signal {
                &self.0.signals.positions
            }
        }
    )+};
}

recorder!(
    PostgresAggregateRecorder,
    PostgresApplicationRecorder,
    PostgresProcessRecorder,
    PostgresTrackingRecorder
);
aggregate_recorder!(PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder);
application_recorder!(PostgresApplicationRecorder, PostgresProcessRecorder);
tracking_recorder!(PostgresProcessRecorder, PostgresTrackingRecorder);

impl ProcessRecorder for PostgresProcessRecorder {
    async fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.0.append(events, Some(tracking)).await
    }
}

//! The recorders: each tier is a thin face of a [`SqliteDatastore`] and a table.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, Signal, StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};

use crate::{SqliteDatastore, schema::tables::EventTable};

/// Keeps the events, or snapshots, of aggregates, each at a version of its own.
///
/// Made by [`SqliteDatastore::aggregate_recorder`]. Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct SqliteAggregateRecorder {
    pub(crate) datastore: SqliteDatastore,
    pub(crate) table: Arc<EventTable>,
}

/// Keeps the events of an application in one total order.
///
/// The order is that of the table's rowids, as in the Python library. `VACUUM` may give rows other
/// rowids: never run it on a database that has notifications to follow.
///
/// Never delete the latest rows either. SQLite gives the id of a deleted highest row to the next one,
/// and a reader that has seen the first misses the second. A datastore does not use an id again that it
/// has committed itself since it was opened; this does not cover ids that other processes committed, or
/// that were committed before.
///
/// Made by [`SqliteDatastore::application_recorder`]. Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct SqliteApplicationRecorder {
    pub(crate) datastore: SqliteDatastore,
    pub(crate) table: Arc<EventTable>,
}

/// Keeps the events of an application, and how far it has processed the events of others.
///
/// Made by [`SqliteDatastore::process_recorder`]. Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct SqliteProcessRecorder {
    pub(crate) datastore: SqliteDatastore,
    pub(crate) table: Arc<EventTable>,
}

/// Keeps how far the events of other applications have been processed.
///
/// Made by [`SqliteDatastore::tracking_recorder`]. Cloning is cheap; closing closes the datastore.
#[derive(Clone, Debug)]
pub struct SqliteTrackingRecorder {
    pub(crate) datastore: SqliteDatastore,
    pub(crate) table: Arc<EventTable>,
}

macro_rules! implement {
    ($recorder:ident: Recorder $($tier:ident)*) => {
        impl $recorder {
            pub(crate) fn new(datastore: SqliteDatastore, table: Arc<EventTable>) -> Self {
                Self { datastore, table }
            }

            /// The datastore that the recorder shares.
            pub fn datastore(&self) -> &SqliteDatastore {
                &self.datastore
            }
        }

        impl Recorder for $recorder {
            async fn close(&self) -> Result<(), PersistenceError> {
                self.datastore.close().await
            }
        }

        $(implement!(@$tier $recorder);)*
    };

    (@AggregateRecorder $recorder:ident) => {
        impl AggregateRecorder for $recorder {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                self.datastore.append(&self.table, events, None).await
            }

            async fn select_events(
                &self,
                originator_id: Uuid,
                range: EventRange,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                self.datastore.select_events(&self.table, originator_id, range).await
            }
        }
    };

    (@ApplicationRecorder $recorder:ident) => {
        impl ApplicationRecorder for $recorder {
            async fn select_notifications(
                &self,
                selection: NotificationSelection,
            ) -> Result<Vec<Notification>, PersistenceError> {
                let table = Arc::clone(&self.table);
                self.datastore.read(move |session| session.select_notifications(&table, &selection)).await
            }

            async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
                let table = Arc::clone(&self.table);
                self.datastore.read(move |session| session.max_notification_id(&table)).await
            }

            fn commit_signal(&self) -> &Signal {
                &self.datastore.signals().commits
            }
        }
    };

    (@TrackingRecorder $recorder:ident) => {
        impl TrackingRecorder for $recorder {
            async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
                self.datastore.append(&self.table, Vec::new(), Some(tracking)).await.map(drop)
            }

            async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
                let application_name = application_name.to_owned();
                self.datastore.read(move |session| session.max_tracking_id(&application_name)).await
            }

            fn tracking_signal(&self) -> &Signal {
                &self.datastore.signals().positions
            }
        }
    };

    (@ProcessRecorder $recorder:ident) => {
        impl ProcessRecorder for $recorder {
            async fn insert_events_with_tracking(
                &self,
                events: Vec<StoredEvent>,
                tracking: Tracking,
            ) -> Result<Vec<i64>, PersistenceError> {
                self.datastore.append(&self.table, events, Some(tracking)).await
            }
        }
    };
}

implement!(SqliteAggregateRecorder: Recorder AggregateRecorder);
implement!(SqliteApplicationRecorder: Recorder AggregateRecorder ApplicationRecorder);
implement!(SqliteProcessRecorder: Recorder AggregateRecorder ApplicationRecorder TrackingRecorder ProcessRecorder);
implement!(SqliteTrackingRecorder: Recorder TrackingRecorder);

//! The recorders: handles on a datastore, one type per tier.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, Signal, StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};

use crate::datastore::Datastore;

macro_rules! handle {
    ($(#[$doc:meta])* $Handle:ident) => {
        $(#[$doc])*
        ///
        /// Cloning returns another handle on the same events.
        #[derive(Clone, Debug)]
        pub struct $Handle {
            pub(crate) datastore: Arc<Datastore>,
        }

        impl $Handle {
            /// An empty recorder.
            pub fn new() -> Self {
                Self { datastore: Arc::new(Datastore::new()) }
            }
        }

        impl Default for $Handle {
            fn default() -> Self {
                Self::new()
            }
        }

        impl Recorder for $Handle {
            /// Closes the recorder for all its clones, and drops its contents.
            async fn close(&self) -> Result<(), PersistenceError> {
                self.datastore.close()
            }
        }
    };
}

handle! {
    /// Stores the events of aggregates in memory.
    PopoAggregateRecorder
}
handle! {
    /// Stores events in one total order in memory.
    PopoApplicationRecorder
}
handle! {
    /// Stores tracking positions in memory.
    PopoTrackingRecorder
}
handle! {
    /// Stores events in one total order, and tracking positions, in memory.
    PopoProcessRecorder
}

impl AggregateRecorder for PopoAggregateRecorder {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.datastore.insert(events, None)?;
        Ok(Vec::new())
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.datastore.select_events(originator_id, range)
    }
}

macro_rules! application_recorder {
    ($Handle:ident) => {
        impl AggregateRecorder for $Handle {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                Ok(self.datastore.insert(events, None)?.collect())
            }

            async fn select_events(
                &self,
                originator_id: Uuid,
                range: EventRange,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                self.datastore.select_events(originator_id, range)
            }
        }

        impl ApplicationRecorder for $Handle {
            async fn select_notifications(
                &self,
                selection: NotificationSelection,
            ) -> Result<Vec<Notification>, PersistenceError> {
                self.datastore.select_notifications(&selection)
            }

            async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
                self.datastore.max_notification_id()
            }

            fn commit_signal(&self) -> &Signal {
                &self.datastore.commits
            }
        }
    };
}

application_recorder!(PopoApplicationRecorder);
application_recorder!(PopoProcessRecorder);

macro_rules! tracking_recorder {
    ($Handle:ident) => {
        impl TrackingRecorder for $Handle {
            async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
                self.datastore.insert(Vec::new(), Some(tracking)).map(drop)
            }

            async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
                self.datastore.max_tracking_id(application_name)
            }

            fn tracking_signal(&self) -> &Signal {
                &self.datastore.positions
            }
        }
    };
}

tracking_recorder!(PopoTrackingRecorder);
tracking_recorder!(PopoProcessRecorder);

impl ProcessRecorder for PopoProcessRecorder {
    async fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        Ok(self.datastore.insert(events, Some(tracking))?.collect())
    }
}

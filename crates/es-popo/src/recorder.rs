//! The recorders: handles on a table, one type per tier.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, SegmentChange, SegmentRecorder, Segments, Signal,
    StoredEvent, Tracking, TrackingRecorder, uuid::Uuid,
};

use crate::table::{Table, closed};

/// A table, and the signals of one recorder of it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    table: Arc<Table>,
    /// Closed with the recorder.
    commits: Signal,
    positions: Signal,
}

impl Store {
    fn of(table: &Arc<Table>) -> Self {
        Self { table: Arc::clone(table), commits: table.commits.child(), positions: table.positions.child() }
    }

    /// Returns the table, unless the recorder is closed.
    pub(crate) fn table(&self) -> Result<&Table, PersistenceError> {
        if self.commits.is_closed() { Err(closed()) } else { Ok(&self.table) }
    }

    fn close(&self) {
        self.commits.close();
        self.positions.close();
    }
}

macro_rules! handle {
    ($(#[$doc:meta])* $Handle:ident) => {
        $(#[$doc])*
        ///
        /// Cloning returns another handle on the same recorder. Recorders of one
        /// [`PopoDatastore`](crate::PopoDatastore) share their events.
        #[derive(Clone, Debug)]
        pub struct $Handle(pub(crate) Store);

        impl $Handle {
            /// An empty recorder with a datastore of its own.
            pub fn new() -> Self {
                Self::of(&Arc::new(Table::new()))
            }

            pub(crate) fn of(table: &Arc<Table>) -> Self {
                Self(Store::of(table))
            }
        }

        impl Default for $Handle {
            fn default() -> Self {
                Self::new()
            }
        }

        impl Recorder for $Handle {
            async fn close(&self) -> Result<(), PersistenceError> {
                self.0.close();
                Ok(())
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
        self.0.table()?.insert(events, None)?;
        Ok(Vec::new())
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.table()?.select_events(originator_id, range)
    }
}

macro_rules! application_recorder {
    ($Handle:ident) => {
        impl AggregateRecorder for $Handle {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                Ok(self.0.table()?.insert(events, None)?.collect())
            }

            async fn select_events(
                &self,
                originator_id: Uuid,
                range: EventRange,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                self.0.table()?.select_events(originator_id, range)
            }
        }

        impl ApplicationRecorder for $Handle {
            async fn select_notifications(
                &self,
                selection: NotificationSelection,
            ) -> Result<Vec<Notification>, PersistenceError> {
                self.0.table()?.select_notifications(&selection)
            }

            async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
                self.0.table()?.max_notification_id()
            }

            fn commit_signal(&self) -> &Signal {
                &self.0.commits
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
                self.0.table()?.insert(Vec::new(), Some(tracking)).map(drop)
            }

            async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
                self.0.table()?.max_tracking_id(application_name)
            }

            fn tracking_signal(&self) -> &Signal {
                &self.0.positions
            }
        }

        impl SegmentRecorder for $Handle {
            async fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
                self.0.table()?.segments(consumer_name)
            }

            async fn change_segments(
                &self,
                consumer_name: &str,
                change: SegmentChange,
            ) -> Result<Segments, PersistenceError> {
                self.0.table()?.change_segments(consumer_name, &change)
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
        Ok(self.0.table()?.insert(events, Some(tracking))?.collect())
    }
}

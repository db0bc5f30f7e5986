//! The recorders: each one delegates to a [`SqliteDatastore`] with a table.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, RecorderTables, Signal, StoredEvent, Tracking,
    TrackingRecorder, uuid::Uuid,
};
use rusqlite::Connection;

use crate::{
    connection::Session,
    datastore::SqliteDatastore,
    error::from_sqlite,
    lifecycle::Lifecycle,
    read::ReadStats,
    schema::{EventTable, tables},
    write::Outcome,
};

/// Stores the events, or snapshots, of aggregates by version.
///
/// Made by [`SqliteDatastore::aggregate_recorder`]. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SqliteAggregateRecorder(pub(crate) Store);

/// Stores the events of an application in one total order.
///
/// The order is that of the table's rowids, as in the Python library. `VACUUM` may change rowids: never run
/// it on a database whose notifications are followed.
///
/// Never delete the latest rows either. SQLite gives the id of a deleted highest row to the next one, and a
/// reader that has seen the first misses the second. A datastore does not reuse an id that it has committed
/// itself since it was opened; this does not cover ids that other processes committed, or that were committed
/// before.
///
/// Made by [`SqliteDatastore::application_recorder`]. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SqliteApplicationRecorder(pub(crate) Store);

/// Stores the events of an application, and its positions in the events of other applications.
///
/// Made by [`SqliteDatastore::process_recorder`]. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SqliteProcessRecorder(pub(crate) Store);

/// Stores positions in the events of other applications.
///
/// Made by [`SqliteDatastore::tracking_recorder`]. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SqliteTrackingRecorder(pub(crate) Store);

/// A table of a datastore, the measurements of its reads, and the state of its recorder.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) datastore: SqliteDatastore,
    pub(crate) table: Arc<EventTable>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    reads: Arc<ReadStats>,
}

impl Store {
    async fn append(&self, events: Vec<StoredEvent>, tracking: Option<Tracking>) -> Outcome {
        self.datastore.append(&self.table, &self.lifecycle, events, tracking).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&mut Session) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        self.lifecycle.check_open()?;
        self.datastore.read(read).await
    }

    async fn close(&self) {
        self.lifecycle.close();
        // An accepted write must not wait for an inline commit whose future is not polled.
        self.datastore.wake_worker();
        self.lifecycle.answered().await;
    }
}

impl SqliteDatastore {
    /// Makes a recorder of events in a table of its own, named `stored_` and the purpose: `"events"` or
    /// `"snapshots"` by convention. Its events have no notification ids.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the purpose is empty or has other characters than
    /// letters, digits, `_`, `-` and `.`; if the table cannot be created.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn aggregate_recorder(
        &self,
        purpose: &str,
    ) -> Result<SqliteAggregateRecorder, PersistenceError> {
        self.aggregate_recorder_with(purpose, &RecorderTables::new()).await
    }

    /// Makes a recorder as [`aggregate_recorder`](Self::aggregate_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`aggregate_recorder`](Self::aggregate_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) for another table of tracking records.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn aggregate_recorder_with(
        &self,
        purpose: &str,
        tables: &RecorderTables,
    ) -> Result<SqliteAggregateRecorder, PersistenceError> {
        let table = match tables.events_name() {
            Some(name) => EventTable::named(name, false)?,
            None => EventTable::for_purpose(purpose)?,
        };
        Ok(SqliteAggregateRecorder(self.events_store(table, tables).await?))
    }

    /// Makes a recorder of an application's events, in the table `stored_events`.
    ///
    /// # Errors
    /// If the table cannot be created.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn application_recorder(&self) -> Result<SqliteApplicationRecorder, PersistenceError> {
        self.application_recorder_with(&RecorderTables::new()).await
    }

    /// Makes a recorder as [`application_recorder`](Self::application_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`application_recorder`](Self::application_recorder);
    /// [`NotSupported`](es_core::ErrorKind::NotSupported) for another table of tracking records.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn application_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<SqliteApplicationRecorder, PersistenceError> {
        Ok(SqliteApplicationRecorder(self.events_store(application_table(tables)?, tables).await?))
    }

    /// Makes a recorder of an application's events and of its tracking records, in the tables `stored_events`
    /// and `tracking`.
    ///
    /// # Errors
    /// If the tables cannot be created.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn process_recorder(&self) -> Result<SqliteProcessRecorder, PersistenceError> {
        self.process_recorder_with(&RecorderTables::new()).await
    }

    /// Makes a recorder as [`process_recorder`](Self::process_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`process_recorder`](Self::process_recorder); [`NotSupported`](es_core::ErrorKind::NotSupported)
    /// for another table of tracking records.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn process_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<SqliteProcessRecorder, PersistenceError> {
        let store = self.events_store(application_table(tables)?, tables).await?;
        self.create_table(tables.is_created(), tables::create_tracking).await?;
        Ok(SqliteProcessRecorder(store))
    }

    /// Makes a recorder of tracking records alone, in the table `tracking`.
    ///
    /// # Errors
    /// If the table cannot be created.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tracking_recorder(&self) -> Result<SqliteTrackingRecorder, PersistenceError> {
        self.tracking_recorder_with(&RecorderTables::new()).await
    }

    /// Makes a recorder as [`tracking_recorder`](Self::tracking_recorder) does, of other tables.
    ///
    /// # Errors
    /// As [`tracking_recorder`](Self::tracking_recorder); [`NotSupported`](es_core::ErrorKind::NotSupported)
    /// for another table of tracking records.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn tracking_recorder_with(
        &self,
        tables: &RecorderTables,
    ) -> Result<SqliteTrackingRecorder, PersistenceError> {
        let table = application_table(tables)?;
        self.create_table(tables.is_created(), tables::create_tracking).await?;
        // A request names an events table; nothing is recorded in this one.
        Ok(SqliteTrackingRecorder(self.store(Arc::new(table))))
    }

    async fn events_store(
        &self,
        table: EventTable,
        tables: &RecorderTables,
    ) -> Result<Store, PersistenceError> {
        check_tracking(tables)?;
        let table = Arc::new(table);
        let created = Arc::clone(&table);
        let create = move |connection: &mut Connection| tables::create_events(connection, &created);
        self.create_table(tables.is_created(), create).await?;
        Ok(self.store(table))
    }

    fn store(&self, table: Arc<EventTable>) -> Store {
        let lifecycle = Arc::new(Lifecycle::new(self.signals()));
        Store { datastore: self.clone(), table, lifecycle, reads: Arc::default() }
    }
}

/// Returns the table of an application's events.
fn application_table(tables: &RecorderTables) -> Result<EventTable, PersistenceError> {
    check_tracking(tables)?;
    tables
        .events_name()
        .map_or_else(|| Ok(EventTable::of_application()), |name| EventTable::named(name, true))
}

/// Refuses another name than the one of SQLite's table of tracking records, which the Python library has too.
fn check_tracking(tables: &RecorderTables) -> Result<(), PersistenceError> {
    match tables.tracking_name() {
        None | Some("tracking") => Ok(()),
        Some(other) => Err(PersistenceError::not_supported(format!(
            "a table of tracking records named {other:?}: on SQLite its name is \"tracking\""
        ))),
    }
}

macro_rules! implement {
    ($recorder:ident: Recorder $($tier:ident)*) => {
        impl $recorder {
            /// Returns the datastore that the recorder shares.
            pub fn datastore(&self) -> &SqliteDatastore {
                &self.0.datastore
            }
        }

        impl Recorder for $recorder {
            async fn close(&self) -> Result<(), PersistenceError> {
                self.0.close().await;
                Ok(())
            }
        }

        $(implement!(@$tier $recorder);)*
    };

    (@AggregateRecorder $recorder:ident) => {
        impl AggregateRecorder for $recorder {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                self.0.append(events, None).await
            }

            async fn select_events(
                &self,
                originator_id: Uuid,
                range: EventRange,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                let Store { datastore, table, lifecycle, reads } = &self.0;
                lifecycle.check_open()?;
                datastore.select_events(table, reads, originator_id, range).await
            }
        }
    };

    (@ApplicationRecorder $recorder:ident) => {
        impl ApplicationRecorder for $recorder {
            async fn select_notifications(
                &self,
                selection: NotificationSelection,
            ) -> Result<Vec<Notification>, PersistenceError> {
                let table = Arc::clone(&self.0.table);
                self.0.read(move |session| session.select_notifications(&table, &selection)).await
            }

            async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
                let table = Arc::clone(&self.0.table);
                self.0
                    .read(move |session| table.max_notification_id(&session.connection).map_err(from_sqlite))
                    .await
            }

            fn commit_signal(&self) -> &Signal {
                &self.0.lifecycle.commits
            }
        }
    };

    (@TrackingRecorder $recorder:ident) => {
        impl TrackingRecorder for $recorder {
            async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
                self.0.append(Vec::new(), Some(tracking)).await.map(drop)
            }

            async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
                let application_name = application_name.to_owned();
                self.0.read(move |session| session.max_tracking_id(&application_name)).await
            }

            fn tracking_signal(&self) -> &Signal {
                &self.0.lifecycle.positions
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
                self.0.append(events, Some(tracking)).await
            }
        }
    };
}

implement!(SqliteAggregateRecorder: Recorder AggregateRecorder);
implement!(SqliteApplicationRecorder: Recorder AggregateRecorder ApplicationRecorder);
implement!(
    SqliteProcessRecorder: Recorder AggregateRecorder ApplicationRecorder TrackingRecorder ProcessRecorder
);
implement!(SqliteTrackingRecorder: Recorder TrackingRecorder);

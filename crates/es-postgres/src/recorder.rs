//! The recorders, and the parts they share: tables, queue, signals, reads.

use std::sync::Arc;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, Signal, StoredEvent, Tracking, TrackingRecorder,
};
use uuid::Uuid;

use crate::{
    connection::{Database, column},
    error,
    follow::{self, Signals},
    options::NotificationOrdering,
    read::{gap_fence, known_head::KnownHead, select, standby::StandbyReader},
    resources::Resources,
    runtime,
    schema::{CatalogState, TableName, TableSpec, rows::Topics},
    write::{AppenderCache, Committer, Queue},
};

/// Keeps events, or snapshots, of aggregates in one table.
///
/// Made by [`PostgresDatastore::aggregate_recorder`](crate::PostgresDatastore::aggregate_recorder).
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct PostgresAggregateRecorder(pub(crate) Arc<Store>);

/// Keeps events in one total order.
///
/// Made by
/// [`PostgresDatastore::application_recorder`](crate::PostgresDatastore::application_recorder).
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct PostgresApplicationRecorder(pub(crate) Arc<Store>);

/// Keeps events in one total order, and tracking records in the same commit.
///
/// Made by [`PostgresDatastore::process_recorder`](crate::PostgresDatastore::process_recorder).
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct PostgresProcessRecorder(pub(crate) Arc<Store>);

/// Keeps tracking records alone.
///
/// Made by [`PostgresDatastore::tracking_recorder`](crate::PostgresDatastore::tracking_recorder).
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct PostgresTrackingRecorder(pub(crate) Arc<Store>);

macro_rules! recorder {
    ($($name:ident),+) => {$(
        impl Recorder for $name {
            async fn close(&self) -> Result<(), PersistenceError> {
                self.0.close().await
            }
        }
    )+};
}

macro_rules! aggregate_recorder {
    ($($name:ident),+) => {$(
        impl AggregateRecorder for $name {
            async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
                self.0.queue.append(events, None).await
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
                self.0.queue.append(Vec::new(), Some(tracking)).await.map(drop)
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
        self.0.queue.append(events, Some(tracking)).await
    }
}

/// The tables, the queue and the signals of one recorder.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) database: Arc<Database>,
    pub(crate) appender: Arc<AppenderCache>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) signals: Arc<Signals>,
    tables: TableSpec,
    /// The connections are open as long as a recorder is.
    _resources: Arc<Resources>,
}

impl Store {
    pub(crate) fn new(
        resources: Arc<Resources>,
        database: Arc<Database>,
        tables: TableSpec,
        state: CatalogState,
    ) -> Result<Self, PersistenceError> {
        // A signal that a caller keeps does not keep the connections open; a task that polls does.
        let (listener, runtime) = (Arc::downgrade(&resources.listener), runtime::current()?);
        let signals = Arc::new(resources.listener.tables.signals(&tables, move |permit| {
            if let Some(listener) = listener.upgrade() {
                runtime.spawn(follow::poll(listener, permit));
            }
        }));
        let appender = Arc::new(AppenderCache::new(Arc::clone(&database), tables.clone(), state));
        // Writers that exclude each other would only wait for each other.
        let writers = if appender.get().excludes_others() { 1 } else { database.options.writers.get() };
        let queue = resources.add_queue(|| {
            let committer = Committer::new(Arc::clone(&appender), Arc::clone(&signals));
            Arc::new(Queue::start(committer, &database.options, writers))
        })?;
        Ok(Self { database, appender, queue, signals, tables, _resources: resources })
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let query = select::events(self.events()?, originator_id, range)?;
        let mut topics = Topics::default();
        self.database.fetch(&query, |row| topics.event(row)).await
    }

    async fn select_notifications(
        &self,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let (database, events) = (&*self.database, self.events()?);
        if selection.limit == 0 {
            return Ok(Vec::new());
        }
        if let (Some(standbys), Some(head)) = (&database.standbys, self.signals.head()) {
            return StandbyReader { database, standbys, events, head }.read(selection).await;
        }
        match database.options.ordering {
            NotificationOrdering::Serialized => gap_fence::read(database, events, selection, None).await,
            NotificationOrdering::Parallel => gap_fence::read_complete(database, events, selection).await,
        }
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        let head = self.signals.head();
        let known = head.map(KnownHead::get);
        let highest = gap_fence::highest_id(&self.database, self.events()?).await?;
        if let (Some(head), Some(known)) = (head, known) {
            head.observe(known, highest.unwrap_or(0));
        }
        Ok(highest)
    }

    async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.check_open()?;
        // The reserved name marks a tracking table for the Python library; it is not an application's.
        if application_name == Tracking::RESERVED_NAME || application_name.contains('\0') {
            return Ok(None);
        }
        let table = self.tables.tracking.as_ref();
        let table = table.ok_or_else(|| PersistenceError::internal("a recorder without a tracking table"))?;
        let query = select::max_tracking_id(table, application_name)?;
        let positions = self.database.fetch(&query, |row| column::<Option<i64>>(row, 0)).await?;
        Ok(positions.into_iter().next().flatten())
    }

    async fn close(&self) -> Result<(), PersistenceError> {
        runtime::current()?;
        // First, so that subscriptions end in order, and not with the error of a closed recorder.
        self.signals.close();
        self.queue.close().await;
        self.signals.wait_sent().await;
        Ok(())
    }

    pub(crate) fn check_open(&self) -> Result<(), PersistenceError> {
        if self.queue.is_closed() { Err(error::closed()) } else { Ok(()) }
    }

    pub(crate) fn events(&self) -> Result<&TableName, PersistenceError> {
        self.check_open()?;
        let events = self.tables.events.as_ref();
        events.ok_or_else(|| PersistenceError::internal("a recorder without an events table"))
    }
}

//! What all recorders are made of: the tables of one, how they are read, and the way to write them.

use std::sync::Arc;

use es_core::{EventRange, Notification, NotificationSelection, PersistenceError, StoredEvent, Tracking};
use uuid::Uuid;

use crate::{
    PostgresDatastore,
    connection::session,
    error,
    follow::signals::Signals,
    options::NotificationOrdering,
    read::{gap_fence, select},
    schema::{
        CatalogState, TableName, TableSpec,
        rows::{Topics, column},
    },
    write::{AppenderCache, Committer, Queue},
};

/// The tables of one recorder.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) datastore: PostgresDatastore,
    pub(crate) appender: Arc<AppenderCache>,
    tables: TableSpec,
    pub(crate) queue: Arc<Queue>,
    pub(crate) signals: Arc<Signals>,
}

impl Store {
    pub(crate) fn new(
        datastore: PostgresDatastore,
        tables: TableSpec,
        state: CatalogState,
        signals: Arc<Signals>,
    ) -> Self {
        let options = &datastore.0.options;
        let appender = AppenderCache::new(datastore.clone(), tables.clone(), state);
        // Writers that exclude each other would only wait for each other; positions that one caller records one
        // after the other must not overtake each other.
        let writers = if appender.get().excludes_others() { 1 } else { options.writers.get() };
        let appender = Arc::new(appender);
        let committer = Committer::new(datastore.clone(), Arc::clone(&appender), Arc::clone(&signals));
        let queue = Arc::new(Queue::start(committer, options, writers));
        Self { appender, tables, queue, signals, datastore }
    }

    pub(crate) async fn append(
        &self,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.queue.append(events, tracking).await
    }

    pub(crate) async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let query = select::select_events(self.events()?, originator_id, range)?;
        let mut topics = Topics::default();
        self.datastore.fetch(&query, |row| topics.event(row)).await
    }

    pub(crate) async fn select_notifications(
        &self,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let events = self.events()?;
        if selection.limit == 0 {
            return Ok(Vec::new());
        }
        match self.datastore.0.options.ordering {
            NotificationOrdering::Serialized => {
                gap_fence::read(&self.datastore, events, selection, None).await
            }
            NotificationOrdering::Parallel => gap_fence::select(&self.datastore, events, selection).await,
        }
    }

    pub(crate) async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        gap_fence::highest(&self.datastore, self.events()?).await
    }

    pub(crate) async fn max_tracking_id(
        &self,
        application_name: &str,
    ) -> Result<Option<i64>, PersistenceError> {
        self.check_open()?;
        // The mark in a tracking table that the Python library looks for is nobody's position.
        if application_name == Tracking::RESERVED_NAME || application_name.contains('\0') {
            return Ok(None);
        }
        let tracking = self.tables.tracking.as_ref();
        let tracking =
            tracking.ok_or_else(|| PersistenceError::internal("a recorder without a tracking table"))?;
        let query = select::max_tracking_id(tracking, application_name)?;
        let positions = self.datastore.fetch(&query, |row| column::<Option<i64>>(row, 0)).await?;
        Ok(positions.into_iter().next().flatten())
    }

    /// Begins a transaction that is handed to code of the user's.
    pub(crate) fn begin(&self) -> String {
        session::begin_for_user(&self.datastore.0.options)
    }

    pub(crate) fn check_open(&self) -> Result<(), PersistenceError> {
        if self.queue.is_closed() { Err(error::closed()) } else { Ok(()) }
    }

    fn events(&self) -> Result<&TableName, PersistenceError> {
        self.check_open()?;
        let events = self.tables.events.as_ref();
        events.ok_or_else(|| PersistenceError::internal("a recorder without an events table"))
    }
}

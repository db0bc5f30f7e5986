//! From rows to events.

use std::collections::HashSet;

use bytes::Bytes;
use es_core::{Notification, PersistenceError, StoredEvent, Topic};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use crate::error::DriverError;

/// The columns of a stored event, in the order that [`Topics::event`] reads them.
pub(crate) const EVENT_COLUMNS: &str = "originator_id, originator_version, topic, state";

/// Which of them is the state.
pub(crate) const STATE: usize = 3;

/// Topics of the rows of one answer: there are few, and rows share them.
#[derive(Debug, Default)]
pub(crate) struct Topics(HashSet<Topic>);

impl Topics {
    /// The event in a row of [`EVENT_COLUMNS`].
    pub(crate) fn event(&mut self, row: &PgRow) -> Result<StoredEvent, PersistenceError> {
        let originator_id: Uuid = column(row, 0)?;
        let originator_version: i64 = column(row, 1)?;
        let unreadable = |what: &str| {
            PersistenceError::data(format!(
                "the row of version {originator_version} of originator {originator_id} {what}"
            ))
        };
        let topic: Option<&str> = column(row, 2)?;
        let topic = self.intern(topic.ok_or_else(|| unreadable("has no topic"))?);
        let state: Option<&[u8]> = column(row, STATE)?;
        let state = Bytes::copy_from_slice(state.ok_or_else(|| unreadable("has no state"))?);
        Ok(StoredEvent { originator_id, originator_version, topic, state })
    }

    /// The notification in a row of [`EVENT_COLUMNS`] and `notification_id`.
    pub(crate) fn notification(&mut self, row: &PgRow) -> Result<Notification, PersistenceError> {
        let id: i64 = column(row, 4)?;
        let event = self.event(row).map_err(|error| error.with_context(format_args!("notification {id}")))?;
        Ok(Notification { id, event })
    }

    fn intern(&mut self, text: &str) -> Topic {
        if let Some(topic) = self.0.get(text) {
            return topic.clone();
        }
        let topic = Topic::from_stored(text);
        self.0.insert(topic.clone());
        topic
    }
}

/// The value of a column.
pub(crate) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T, PersistenceError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|error| {
        PersistenceError::data("a row cannot be read as the table's layout says")
            .with_source(DriverError::new(error))
    })
}

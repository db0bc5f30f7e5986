//! Stored events from rows.

use std::collections::HashSet;

use bytes::Bytes;
use es_core::{Notification, PersistenceError, StoredEvent, Topic};
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::connection::column;

/// The columns of a stored event, as [`Topics::event`] reads them.
pub(crate) const EVENT_COLUMNS: &str = "originator_id, originator_version, topic, state";

/// The index of the state in [`EVENT_COLUMNS`].
pub(crate) const STATE: usize = 3;

/// The topics of the rows of one answer: few, and shared by the rows.
#[derive(Debug, Default)]
pub(crate) struct Topics(HashSet<Topic>);

impl Topics {
    /// Returns the event of a row of [`EVENT_COLUMNS`].
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

    /// Returns the notification of a row of [`EVENT_COLUMNS`] and `notification_id`.
    pub(crate) fn notification(&mut self, row: &PgRow) -> Result<Notification, PersistenceError> {
        let id: i64 = column(row, 4)?;
        let event = self.event(row).map_err(|error| error.with_notification(id))?;
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

//! Queries of events, notifications and positions.

use std::rc::Rc;

use es_core::{
    EventRange, Notification, NotificationSelection, PersistenceError, StoredEvent, Tracking, uuid::Uuid,
};
use rusqlite::types::Value;

use crate::{
    connection::Session,
    error::from_sqlite,
    schema::{EventTable, RowReader, tables, with_stored_id},
};

impl Session {
    pub(crate) fn select_events(
        &mut self,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.select_events_while(table, originator_id, range, |_, _| true)
    }

    /// Returns events until `has_capacity`, called after each event with their number and bytes, returns
    /// false.
    pub(crate) fn select_events_while(
        &mut self,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
        mut has_capacity: impl FnMut(usize, usize) -> bool,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let mut select = self.connection.prepare_cached(table.select(&range)).map_err(from_sqlite)?;
        with_stored_id(originator_id, |id| select.raw_bind_parameter(1, id)).map_err(from_sqlite)?;
        for (parameter, bound) in [(2, range.gt), (3, range.lte)] {
            let Some(bound) = bound else { continue };
            select.raw_bind_parameter(parameter, bound).map_err(from_sqlite)?;
        }
        let limit = range.limit.unwrap_or(usize::MAX);
        let max_bytes = range.max_bytes.unwrap_or(usize::MAX);
        let mut reader = RowReader { table: &table.name, topics: &mut self.topics };
        let mut rows = select.raw_query();
        let mut events = Vec::new();
        let mut bytes = 0;
        while events.len() < limit
            && let Some(row) = rows.next().map_err(from_sqlite)?
        {
            let event = reader.event(row, 0, originator_id)?;
            bytes += event.state.len();
            events.push(event);
            if !has_capacity(events.len(), bytes) || bytes >= max_bytes {
                break;
            }
        }
        Ok(events)
    }

    pub(crate) fn select_notifications(
        &mut self,
        table: &EventTable,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let Some(first) = selection.first_id() else { return Ok(Vec::new()) };
        let statement = match selection.topics.as_slice() {
            [] => &table.select_notifications,
            _ => &table.select_notifications_of_topics,
        };
        let mut select = self.connection.prepare_cached(statement).map_err(from_sqlite)?;
        let last = selection.stop.unwrap_or(i64::MAX);
        for (parameter, value) in [(1, first), (2, last)] {
            select.raw_bind_parameter(parameter, value).map_err(from_sqlite)?;
        }
        if !selection.topics.is_empty() {
            let topics = selection.topics.iter().map(|topic| Value::from(topic.to_string())).collect();
            select.raw_bind_parameter(3, Rc::<Vec<Value>>::new(topics)).map_err(from_sqlite)?;
        }
        let mut reader = RowReader { table: &table.name, topics: &mut self.topics };
        let mut rows = select.raw_query();
        let mut notifications = Vec::new();
        let (mut bytes, max_bytes) = (0, selection.max_bytes.unwrap_or(usize::MAX));
        while notifications.len() < selection.limit
            && let Some(row) = rows.next().map_err(from_sqlite)?
        {
            let id = row.get(0).map_err(from_sqlite)?;
            let originator_id = reader.originator_id(row, 1, format_args!("notification {id}"))?;
            let event = reader.event(row, 2, originator_id);
            let event = event.map_err(|error| error.with_notification(id))?;
            bytes = event.state.len().saturating_add(bytes);
            notifications.push(Notification { id, event });
            if bytes >= max_bytes {
                break;
            }
        }
        // A subscription must not wait forever at the end of a file that no process writes any more.
        if notifications.is_empty() {
            self.file_identity.verify_unchanged().map_err(from_sqlite)?;
        }
        Ok(notifications)
    }

    pub(crate) fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        // The Python library's migration mark is no application.
        if application_name == Tracking::RESERVED_NAME {
            return Ok(None);
        }
        tables::max_tracking_id(&self.connection, application_name).map_err(from_sqlite)
    }
}

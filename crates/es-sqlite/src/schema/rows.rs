//! Conversion between rows and events. A row that is no valid event is an error that names it, never skipped.

use std::{borrow::Cow, collections::HashSet, fmt::Display};

use es_core::{Bytes, EventContext, PersistenceError, StoredEvent, Topic, uuid::Uuid};
use rusqlite::{Row, types::ValueRef};

use crate::error::from_sqlite;

/// More topics than any program has event types.
const MAX_TOPICS: usize = 1_024;

/// The topics read so far, so that rows of one topic share its text.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    latest: Option<Topic>,
    known: HashSet<Topic>,
}

/// Reads rows of one table.
pub(crate) struct RowReader<'a> {
    pub(crate) table: &'a str,
    pub(crate) topics: &'a mut Topics,
}

impl RowReader<'_> {
    /// Reads an event from a row whose columns from `first` on are version, topic and state.
    pub(crate) fn event(
        &mut self,
        row: &Row<'_>,
        first: usize,
        originator_id: Uuid,
    ) -> Result<StoredEvent, PersistenceError> {
        let version = value(row, first)?;
        let ValueRef::Integer(originator_version) = version else {
            return Err(self.invalid(&format!("originator {originator_id}"), "originator_version", version));
        };
        let topic = value(row, first + 1)?;
        let Some(topic) = text(topic).map(|text| self.topics.intern(text)) else {
            let context = format!("version {originator_version} of originator {originator_id}");
            return Err(self.invalid(&context, "topic", topic));
        };
        let state = match value(row, first + 2)? {
            ValueRef::Blob(state) | ValueRef::Text(state) => Bytes::copy_from_slice(state),
            other => {
                let context = EventContext { originator_id, originator_version, topic: &topic };
                let message = format!("the state is {} in table {:?}", describe(other), self.table);
                return Err(PersistenceError::data(message).with_event(&context));
            }
        };
        Ok(StoredEvent { originator_id, originator_version, topic, state })
    }

    /// Reads the originator from a row, which an error names by `name`.
    pub(crate) fn originator_id(
        &self,
        row: &Row<'_>,
        column: usize,
        name: impl Display,
    ) -> Result<Uuid, PersistenceError> {
        let stored = value(row, column)?;
        text(stored)
            .and_then(|text| Uuid::try_parse(text).ok())
            .ok_or_else(|| self.invalid(&name.to_string(), "originator_id", stored))
    }

    fn invalid(&self, row: &str, column: &str, found: ValueRef<'_>) -> PersistenceError {
        let Self { table, .. } = self;
        let found = describe(found);
        PersistenceError::data(format!("{row} in table {table:?} cannot be read: its {column} is {found}"))
    }
}

impl Topics {
    fn intern(&mut self, text: &str) -> Topic {
        if let Some(latest) = self.latest.as_ref().filter(|latest| latest.as_str() == text) {
            return latest.clone();
        }
        let topic = self.known.get(text).cloned().unwrap_or_else(|| self.insert(text));
        self.latest = Some(topic.clone());
        topic
    }

    fn insert(&mut self, text: &str) -> Topic {
        let topic = Topic::from_stored(text);
        if self.known.len() == MAX_TOPICS {
            self.known.clear();
        }
        self.known.insert(topic.clone());
        topic
    }
}

/// Calls `f` with a UUID as it is stored: 32 hex digits.
pub(crate) fn with_stored_id<T>(id: Uuid, f: impl FnOnce(&str) -> T) -> T {
    f(id.simple().encode_lower(&mut Uuid::encode_buffer()))
}

fn value<'row>(row: &'row Row<'_>, column: usize) -> Result<ValueRef<'row>, PersistenceError> {
    row.get_ref(column).map_err(from_sqlite)
}

fn text(value: ValueRef<'_>) -> Option<&str> {
    match value {
        ValueRef::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

/// Describes the value of a column in words; bytes are not shown.
fn describe(value: ValueRef<'_>) -> Cow<'static, str> {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => format!("the integer {number}").into(),
        ValueRef::Real(number) => format!("the real number {number}").into(),
        ValueRef::Blob(_) => "bytes".into(),
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)).into(),
    }
}

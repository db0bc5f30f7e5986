//! Maintenance of recorded events: reading them by key, and replacing their states.

use std::{fmt, future::Future};

use uuid::Uuid;

use crate::{AggregateRecorder, Bytes, PersistenceError, StoredEvent};

/// The key of a recorded event. Keys are ordered by originator id, then by version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKey {
    /// The aggregate.
    pub originator_id: Uuid,
    /// The position in the aggregate's sequence.
    pub originator_version: i64,
}

/// A new state for a recorded event.
#[derive(Clone, PartialEq, Eq)]
pub struct StateReplacement {
    /// The event.
    pub key: EventKey,
    /// The state that is expected to be recorded.
    pub current: Bytes,
    /// The state that replaces it.
    pub replacement: Bytes,
}

/// Reads and replaces the states of recorded events, for changes of their representation: a new key, for
/// example. Originators, versions, topics and notification ids stay as they are.
///
/// Implemented by recorders of databases, for the table that they append to: events, or snapshots.
pub trait StateMaintenance: AggregateRecorder {
    /// Returns events in the order of their keys, after a key, or from the first one on: at most `limit`, and
    /// fewer if their states reach [`DEFAULT_PAGE_BYTES`](crate::DEFAULT_PAGE_BYTES). None are left if there
    /// are none.
    ///
    /// # Errors
    /// Any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select_by_key(
        &self,
        after: Option<EventKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<StoredEvent>, PersistenceError>> + Send;

    /// Replaces states in one transaction. Returns the number of replaced states: an event whose state is
    /// not the expected one, because another process has replaced it, is left as it is.
    ///
    /// On PostgreSQL this needs the right to update the table.
    ///
    /// # Errors
    /// Any error of recording. Nothing is replaced then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown) or the connection was lost; repeating it
    /// is safe.
    ///
    /// # Cancel safety
    /// Cancel safe: either all states are replaced or none.
    fn replace_states(
        &self,
        replacements: Vec<StateReplacement>,
    ) -> impl Future<Output = Result<usize, PersistenceError>> + Send;
}

impl StoredEvent {
    /// Returns the key of the event.
    pub fn key(&self) -> EventKey {
        EventKey { originator_id: self.originator_id, originator_version: self.originator_version }
    }
}

impl fmt::Debug for StateReplacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateReplacement").field("key", &self.key).finish_non_exhaustive()
    }
}

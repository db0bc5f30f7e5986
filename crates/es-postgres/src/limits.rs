//! Limits of requests and groups.

use es_core::{PersistenceError, StoredEvent};

/// The size of an event beyond its topic and state, in bytes of the queue: it bounds the number of events
/// too.
const ROW_COST: usize = 128;

/// The largest request, in bytes. PostgreSQL takes 1 GiB in one value, and an array of states is one value.
const LARGEST_REQUEST: usize = 1_000_000_000;

/// The largest group of several requests. A larger request is a group of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// Returns the size of a request in bytes of the queue.
pub(crate) fn queued_size(events: &[StoredEvent]) -> usize {
    events.iter().map(event_size).sum::<usize>() + ROW_COST
}

/// Checks that PostgreSQL takes the events in one statement.
pub(crate) fn check_size(events: &[StoredEvent]) -> Result<(), PersistenceError> {
    let bytes: usize = events.iter().map(event_size).sum();
    if bytes <= LARGEST_REQUEST {
        return Ok(());
    }
    let error = PersistenceError::data(format!(
        "{bytes} bytes of events are more than the {LARGEST_REQUEST} that PostgreSQL takes at once"
    ));
    Err(match events.iter().max_by_key(|event| event.state.len()) {
        Some(largest) => error.with_event(&largest.context()),
        None => error,
    })
}

fn event_size(event: &StoredEvent) -> usize {
    event.topic.len() + event.state.len() + ROW_COST
}

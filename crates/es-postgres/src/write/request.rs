//! Requests: what a caller wants recorded as one, and its result.

use std::collections::HashSet;

use es_core::{Conflict, PersistenceError, StoredEvent, Tracking};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// The size of an event beyond its topic and state, in bytes of the queue: it bounds the queue in rows too.
const ROW_COST: usize = 128;

/// The largest request, in bytes. PostgreSQL takes 1 GiB in one value, and an array of states is one value.
const LARGEST_REQUEST: usize = 1_000_000_000;

/// The events and the position that are recorded as one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) events: &'a [StoredEvent],
    pub(crate) tracking: Option<&'a Tracking>,
}

/// A batch in the queue, with the channel for its result.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) events: Vec<StoredEvent>,
    pub(crate) tracking: Option<Tracking>,
    reply: oneshot::Sender<Result<Vec<i64>, PersistenceError>>,
    /// Its share of the queue, until the result is sent.
    _permit: OwnedSemaphorePermit,
}

impl Request {
    pub(crate) fn new(
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
        reply: oneshot::Sender<Result<Vec<i64>, PersistenceError>>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { events, tracking, reply, _permit: permit }
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { events: &self.events, tracking: self.tracking.as_ref() }
    }

    /// The upstream application whose position it records.
    pub(crate) fn application_name(&self) -> Option<&str> {
        self.tracking.as_ref().map(Tracking::application_name)
    }

    /// Rows and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.events.len() + 1, queued_size(&self.events))
    }

    /// Sends the result. A caller that dropped its future does not receive it.
    pub(crate) fn answer(self, result: Result<Vec<i64>, PersistenceError>) {
        let _ = self.reply.send(result);
    }
}

/// The size of a request in bytes of the queue.
pub(crate) fn queued_size(events: &[StoredEvent]) -> usize {
    events.iter().map(event_size).sum::<usize>() + ROW_COST
}

fn event_size(event: &StoredEvent) -> usize {
    event.topic.len() + event.state.len() + ROW_COST
}

/// Checks what can be checked of events without the database.
pub(crate) fn check_events(events: &[StoredEvent]) -> Result<(), PersistenceError> {
    let bytes: usize = events.iter().map(event_size).sum();
    if bytes > LARGEST_REQUEST {
        let largest = events.iter().max_by_key(|event| event.state.len());
        let error = PersistenceError::data(format!(
            "{bytes} bytes of events are more than the {LARGEST_REQUEST} that PostgreSQL takes at once"
        ));
        return Err(match largest {
            Some(largest) => error.with_event(&largest.context()),
            None => error,
        });
    }
    // Versions of one aggregate in ascending order, the common case, need no set.
    let key = |event: &StoredEvent| (event.originator_id, event.originator_version);
    if events.is_sorted_by(|a, b| key(a) < key(b)) {
        return Ok(());
    }
    let mut keys = HashSet::with_capacity(events.len());
    match events.iter().find(|event| !keys.insert(key(event))) {
        Some(twice) => Err(version_conflict(twice).into()),
        None => Ok(()),
    }
}

pub(crate) fn version_conflict(event: &StoredEvent) -> Conflict {
    Conflict::Version { originator_id: event.originator_id, originator_version: event.originator_version }
}

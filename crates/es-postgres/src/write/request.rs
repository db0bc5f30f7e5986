//! Requests: events and a position that are recorded together, and the reply to the caller.

use es_core::{PersistenceError, StoredEvent, Tracking};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::limits;

/// The events and the position that are recorded together.
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
    pub(super) reply: oneshot::Sender<Result<Vec<i64>, PersistenceError>>,
    /// Its share of the queue, until the result is sent.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl Request {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { events: &self.events, tracking: self.tracking.as_ref() }
    }

    /// The upstream application whose position it records.
    pub(crate) fn application_name(&self) -> Option<&str> {
        self.tracking.as_ref().map(Tracking::application_name)
    }

    /// Returns its rows and bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.events.len() + 1, limits::queued_size(&self.events))
    }

    /// Sends the result. A caller that dropped its future does not receive it.
    pub(crate) fn answer(self, result: Result<Vec<i64>, PersistenceError>) {
        let _ = self.reply.send(result);
    }
}

/// Checks what can be checked of events without the database: their size, and versions that occur twice.
pub(crate) fn check_events(events: &[StoredEvent]) -> Result<(), PersistenceError> {
    limits::check_size(events)?;
    StoredEvent::verify_unique_versions(events)
}

//! A request to append.

use std::sync::Arc;

use es_core::{PersistenceError, StoredEvent, Tracking};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{lifecycle::PendingWrite, schema::EventTable};

/// The approximate memory of a request, and of an event without its topic and state.
const OVERHEAD: usize = 128;

/// Events and a tracking record to append to a table as one.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) table: &'a EventTable,
    pub(crate) events: &'a [StoredEvent],
    pub(crate) tracking: Option<&'a Tracking>,
}

/// A batch in the queue, with the channel for its outcome.
pub(crate) struct Request {
    pub(crate) table: Arc<EventTable>,
    pub(crate) events: Vec<StoredEvent>,
    pub(crate) tracking: Option<Tracking>,
    pub(crate) reply: oneshot::Sender<Outcome>,
    /// The request's share of the queue budget, returned when it is done.
    pub(crate) permit: OwnedSemaphorePermit,
    /// Closing the recorder waits for it.
    pub(crate) pending: PendingWrite,
}

/// The notification ids, or the error.
pub(crate) type Outcome = Result<Vec<i64>, PersistenceError>;

impl Request {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { table: &self.table, events: &self.events, tracking: self.tracking.as_ref() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.events.len() + usize::from(self.tracking.is_some())
    }

    pub(crate) fn bytes(&self) -> usize {
        queued_size(&self.events)
    }

    /// Returns the share of the queue budget, and sends the outcome to the caller.
    pub(crate) fn reply(self, outcome: Outcome) {
        drop(self.permit);
        let _ = self.reply.send(outcome);
        drop(self.pending);
    }
}

/// Returns the size of a request with these events in the queue and in a group, in bytes.
pub(crate) fn queued_size<'e>(events: impl IntoIterator<Item = &'e StoredEvent>) -> usize {
    let events = events.into_iter().map(|event| OVERHEAD + event.topic.len() + event.state.len());
    OVERHEAD + events.sum::<usize>()
}

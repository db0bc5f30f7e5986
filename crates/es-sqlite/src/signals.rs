//! Who waits for what the writer commits.

use es_core::{Signal, Topic};

use crate::writer::Request;

/// The signals of one datastore: it has one application's events, and one table of positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
}

impl Signals {
    /// Wakes those who wait for what a request has recorded.
    pub(crate) fn recorded(&self, request: &Request) {
        if request.table.is_numbered {
            self.commits.wake(request.events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        if let Some(tracking) = &request.tracking {
            self.positions.wake([tracking.application_name()]);
        }
    }

    pub(crate) fn close(&self) {
        self.commits.close();
        self.positions.close();
    }
}

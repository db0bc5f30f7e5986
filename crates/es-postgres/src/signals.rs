//! Who waits for what is recorded in a recorder's tables.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use es_core::{Signal, Topic};

use crate::{
    schema::{TableName, Wanted},
    writer::Request,
};

/// The signals of one recorder, and of those that share its tables.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    events: Sharers,
    tracking: Sharers,
}

/// The signals of the recorders of one datastore that share a table.
#[derive(Clone, Debug, Default)]
struct Sharers(Arc<Mutex<Vec<Signal>>>);

/// The tables of a datastore's recorders.
#[derive(Debug, Default)]
pub(crate) struct SharedTables(Mutex<HashMap<TableName, Sharers>>);

impl SharedTables {
    /// The signals of another recorder with these tables.
    pub(crate) fn signals(&self, tables: &Wanted) -> Signals {
        let (events, tracking) =
            (self.sharers(tables.events.as_ref()), self.sharers(tables.tracking.as_ref()));
        Signals { commits: events.join(), positions: tracking.join(), events, tracking }
    }

    /// Ends those who follow any of the recorders.
    pub(crate) fn close(&self) {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.values().for_each(|sharers| sharers.signals().iter().for_each(Signal::close));
    }

    fn sharers(&self, table: Option<&TableName>) -> Sharers {
        let Some(table) = table else { return Sharers::default() };
        // Nothing panics while it is held.
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.entry(table.clone()).or_default().clone()
    }
}

impl Signals {
    /// Wakes those who wait for what a request has recorded, whichever recorder they ask.
    pub(crate) fn recorded(&self, request: &Request) {
        for commits in self.events.signals().iter() {
            commits.wake(request.events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        let Some(tracking) = &request.tracking else { return };
        for positions in self.tracking.signals().iter() {
            positions.wake([tracking.application_name()]);
        }
    }

    pub(crate) fn close(&self) {
        self.commits.close();
        self.positions.close();
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.close();
    }
}

impl Sharers {
    fn join(&self) -> Signal {
        let signal = Signal::new();
        let mut signals = self.signals();
        signals.retain(|signal| !signal.is_closed());
        signals.push(signal.clone());
        signal
    }

    fn signals(&self) -> MutexGuard<'_, Vec<Signal>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Who waits for what is recorded in a recorder's tables.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use es_core::{Signal, Topic, Tracking};
use tokio::{runtime::Handle, sync::Notify};

use crate::{
    PostgresDatastore,
    follow::{notify_sender, poller},
    schema::{TableName, TableSpec},
    write::Request,
};

/// The signals of one recorder, and of those that share its tables.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    events: Option<Arc<Followed>>,
    tracking: Option<Arc<Followed>>,
}

/// A table, and who waits for what is recorded in it: the recorders of one datastore share it.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) name: TableName,
    pub(crate) kind: Kind,
    signals: Mutex<Vec<Signal>>,
    /// Whether a task looks for what others have recorded.
    is_polled: Mutex<bool>,
    /// Tells that task to look at once.
    pub(crate) hint: Notify,
    /// Tells it that a recorder was closed.
    pub(crate) closed: Notify,
    hinting: Mutex<Hinting>,
    /// Tells those who close a recorder that the last hint was sent.
    hinted: Notify,
}

/// Whether somebody tells other processes that there is something new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hinting {
    #[default]
    Idle,
    Telling,
    /// There is more since.
    TellingAgain,
}

/// What is recorded in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Events,
    Positions,
}

/// The tables of a datastore's recorders.
#[derive(Debug, Default)]
pub(crate) struct SharedTables(Mutex<HashMap<(TableName, Kind), Arc<Followed>>>);

/// The right to look at a table for those who wait; there is one at a time.
pub(crate) struct Polling {
    pub(crate) table: Arc<Followed>,
    is_over: bool,
}

/// The right to tell others of a table; there is one at a time.
pub(crate) struct Telling {
    pub(crate) table: Arc<Followed>,
    is_over: bool,
}

impl SharedTables {
    /// The signals of another recorder with these tables. Who looks for what others have recorded does
    /// so in the runtime of the caller.
    pub(crate) fn signals(&self, datastore: &PostgresDatastore, tables: &TableSpec) -> Signals {
        let events = tables.events.as_ref().map(|table| self.followed(table, Kind::Events));
        let tracking = tables.tracking.as_ref().map(|table| self.followed(table, Kind::Positions));
        let join =
            |table: Option<&Arc<Followed>>| table.map_or_else(Signal::new, |table| table.join(datastore));
        Signals { commits: join(events.as_ref()), positions: join(tracking.as_ref()), events, tracking }
    }

    /// The tables of events that are looked at for those who wait.
    pub(crate) fn polled(&self) -> Vec<Arc<Followed>> {
        let tables = self.tables();
        let polled = tables.values().filter(|table| table.kind == Kind::Events && *table.is_polled());
        polled.cloned().collect()
    }

    /// Waits until other processes have been told of everything, where they are.
    pub(crate) async fn told(&self) {
        let tables: Vec<_> = self.tables().values().cloned().collect();
        for table in tables {
            table.told().await;
        }
    }

    /// Ends those who follow any of the recorders.
    pub(crate) fn close(&self) {
        self.tables().values().for_each(|table| table.close());
    }

    fn followed(&self, name: &TableName, kind: Kind) -> Arc<Followed> {
        let mut tables = self.tables();
        let table = tables.entry((name.clone(), kind)).or_insert_with(|| Arc::new(Followed::new(name, kind)));
        Arc::clone(table)
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<(TableName, Kind), Arc<Followed>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signals {
    /// Wakes those who wait for what a request has recorded, whichever recorder they ask.
    pub(crate) fn recorded(&self, request: &Request) {
        if let Some(table) = &self.events {
            table.wake(|| request.events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        if let Some(tracking) = &request.tracking {
            self.tracked(tracking);
        }
    }

    /// Wakes those who wait for a position.
    pub(crate) fn tracked(&self, tracking: &Tracking) {
        if let Some(table) = &self.tracking {
            table.wake(|| [tracking.application_name()]);
        }
    }

    /// Tells other processes that events were recorded, without waiting for it.
    pub(crate) fn tell(&self, datastore: &PostgresDatastore) {
        if !datastore.0.options.notify {
            return;
        }
        if let Some(telling) = self.events.as_ref().and_then(Followed::start_telling) {
            tokio::spawn(notify_sender::tell(datastore.clone(), telling));
        }
    }

    /// Ends those who follow the recorder.
    pub(crate) fn close(&self) {
        self.commits.close();
        self.positions.close();
        for table in self.events.iter().chain(&self.tracking) {
            table.closed.notify_one();
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.close();
    }
}

impl Followed {
    fn new(name: &TableName, kind: Kind) -> Self {
        Self {
            name: name.clone(),
            kind,
            signals: Mutex::default(),
            is_polled: Mutex::default(),
            hint: Notify::new(),
            closed: Notify::new(),
            hinting: Mutex::default(),
            hinted: Notify::new(),
        }
    }

    /// The signal of another recorder.
    fn join(self: &Arc<Self>, datastore: &PostgresDatastore) -> Signal {
        // A task that looks holds the datastore; nobody who may start one does.
        let (table, datastore, runtime) =
            (Arc::downgrade(self), Arc::downgrade(&datastore.0), Handle::current());
        let signal = Signal::on_first_listener(move || {
            let (Some(table), Some(datastore)) = (table.upgrade(), Weak::upgrade(&datastore)) else { return };
            if let Some(polling) = table.start_polling() {
                runtime.spawn(poller::run(PostgresDatastore(datastore), polling));
            }
        });
        let mut signals = self.signals();
        signals.retain(|signal| !signal.is_closed());
        signals.push(signal.clone());
        signal
    }

    /// Wakes those who wait for one of these keys.
    pub(crate) fn wake<'k, K: IntoIterator<Item = &'k str>>(&self, keys: impl Fn() -> K) {
        for signal in self.signals().iter() {
            signal.wake(keys());
        }
    }

    pub(crate) fn wake_all(&self) {
        self.signals().iter().for_each(Signal::wake_all);
    }

    fn close(&self) {
        self.signals().iter().for_each(Signal::close);
        self.closed.notify_one();
    }

    /// The right to look, unless somebody has it.
    fn start_polling(self: &Arc<Self>) -> Option<Polling> {
        let was_polled = std::mem::replace(&mut *self.is_polled(), true);
        (!was_polled).then(|| Polling { table: Arc::clone(self), is_over: false })
    }

    /// The right to tell others, unless somebody has it, who then tells again.
    fn start_telling(self: &Arc<Self>) -> Option<Telling> {
        let mut hinting = self.hinting();
        let was_idle = *hinting == Hinting::Idle;
        *hinting = if was_idle { Hinting::Telling } else { Hinting::TellingAgain };
        was_idle.then(|| Telling { table: Arc::clone(self), is_over: false })
    }

    async fn told(&self) {
        loop {
            // Before looking, so that what ends in between is noticed.
            let hinted = self.hinted.notified();
            if *self.hinting() == Hinting::Idle {
                return;
            }
            hinted.await;
        }
    }

    fn has_listeners(&self) -> bool {
        self.signals().iter().any(|signal| signal.has_listeners() && !signal.is_closed())
    }

    fn signals(&self) -> MutexGuard<'_, Vec<Signal>> {
        // Nothing panics while it is held.
        self.signals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_polled(&self) -> MutexGuard<'_, bool> {
        self.is_polled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hinting(&self) -> MutexGuard<'_, Hinting> {
        self.hinting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Polling {
    /// Gives the right back if nobody waits any more; whoever does so from now on takes it.
    pub(crate) fn is_over(&mut self) -> bool {
        if self.is_over {
            return true;
        }
        let mut is_polled = self.table.is_polled();
        self.is_over = !self.table.has_listeners();
        *is_polled = !self.is_over;
        self.is_over
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        // The task did not end by itself: its runtime was shut down.
        if !self.is_over {
            *self.table.is_polled() = false;
        }
    }
}

impl Telling {
    /// Gives the right back if there is nothing more to tell.
    pub(crate) fn is_over(&mut self) -> bool {
        let mut hinting = self.table.hinting();
        self.is_over = *hinting != Hinting::TellingAgain;
        *hinting = if self.is_over { Hinting::Idle } else { Hinting::Telling };
        self.is_over
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if !self.is_over {
            *self.table.hinting() = Hinting::Idle;
        }
        self.table.hinted.notify_waiters();
    }
}

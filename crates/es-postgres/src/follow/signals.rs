//! Signals of recorders, shared by the recorders of one datastore that use the same table.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering as Atomic},
    },
};

use es_core::{Signal, StoredEvent, Topic, Tracking};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    read::known_head::KnownHead,
    schema::{TableName, TableSpec},
    task_permit::{TaskPermit, TaskSlot},
};

/// The signals of one recorder, and its tables.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
    events: Option<Arc<WatchedTable>>,
    tracking: Option<Arc<WatchedTable>>,
}

/// A table, with the signals of all recorders that use it.
#[derive(Debug)]
pub(crate) struct WatchedTable {
    pub(crate) name: TableName,
    pub(crate) kind: TableKind,
    /// The end of the log in an events table, for reads of standbys.
    pub(crate) head: KnownHead,
    signals: Mutex<Vec<Signal>>,
    poller: TaskSlot,
    /// Wakes the poller before its interval is over.
    pub(crate) notified: Notify,
    /// Wakes the poller after a recorder was closed.
    pub(crate) closed: Notify,
    sender: TaskSlot,
    /// The sender has a notification to send.
    is_send_pending: AtomicBool,
    /// Wakes the tasks that close a recorder after the sender has ended.
    sent: Notify,
}

/// The content of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TableKind {
    Events,
    Positions,
}

/// The tables of a datastore's recorders.
#[derive(Debug, Default)]
pub(crate) struct TableRegistry(Mutex<HashMap<(TableName, TableKind), Arc<WatchedTable>>>);

/// The permit to poll a table for all tasks that wait.
pub(crate) struct PollPermit {
    pub(crate) table: Arc<WatchedTable>,
    permit: TaskPermit,
}

/// The permit to send notifications of a table.
pub(crate) struct SendPermit {
    pub(crate) table: Arc<WatchedTable>,
    permit: TaskPermit,
}

impl TableRegistry {
    /// Returns the signals of another recorder with these tables. `poll` starts a task that polls for commits
    /// of others.
    pub(crate) fn signals(
        &self,
        tables: &TableSpec,
        poll: impl Fn(PollPermit) + Clone + Send + Sync + 'static,
    ) -> Signals {
        let events = tables.events.as_ref().map(|table| self.table(table, TableKind::Events));
        let tracking = tables.tracking.as_ref().map(|table| self.table(table, TableKind::Positions));
        let join = |table: Option<&Arc<WatchedTable>>| {
            table.map_or_else(Signal::new, |table| table.add_signal(poll.clone()))
        };
        Signals { commits: join(events.as_ref()), positions: join(tracking.as_ref()), events, tracking }
    }

    /// Returns the events tables that are polled.
    pub(crate) fn polled(&self) -> Vec<Arc<WatchedTable>> {
        let is_polled =
            |table: &&Arc<WatchedTable>| table.kind == TableKind::Events && table.poller.is_taken();
        self.0.lock().values().filter(is_polled).cloned().collect()
    }

    /// Waits until all notifications are sent.
    pub(crate) async fn wait_sent(&self) {
        let tables: Vec<_> = self.0.lock().values().cloned().collect();
        for table in tables {
            table.wait_sent().await;
        }
    }

    /// Closes the signals of all recorders.
    pub(crate) fn close(&self) {
        for table in self.0.lock().values() {
            table.signals.lock().iter().for_each(Signal::close);
            table.closed.notify_one();
        }
    }

    fn table(&self, name: &TableName, kind: TableKind) -> Arc<WatchedTable> {
        let mut tables = self.0.lock();
        let new = || WatchedTable {
            name: name.clone(),
            kind,
            head: KnownHead::default(),
            signals: Mutex::default(),
            poller: TaskSlot::default(),
            notified: Notify::new(),
            closed: Notify::new(),
            sender: TaskSlot::default(),
            is_send_pending: AtomicBool::new(false),
            sent: Notify::new(),
        };
        if !tables.contains_key(&(name.clone(), kind)) {
            // Programs may open any number of tables, one after the other.
            tables.retain(|_, table| Arc::strong_count(table) > 1);
        }
        Arc::clone(tables.entry((name.clone(), kind)).or_insert_with(|| Arc::new(new())))
    }
}

impl Signals {
    /// Returns the end of the log, for a recorder of events.
    pub(crate) fn head(&self) -> Option<&KnownHead> {
        self.events.as_ref().map(|table| &table.head)
    }

    /// Wakes the tasks that wait for these events or this position, through any recorder of the table. `last`
    /// is the last id of the events.
    pub(crate) fn wake(&self, events: &[StoredEvent], last: Option<i64>, tracking: Option<&Tracking>) {
        if let Some(table) = &self.events {
            if let Some(last) = last {
                table.head.raise(last);
            }
            table.wake(|| events.iter().map(|event| Topic::as_str(&event.topic)));
        }
        if let Some(tracking) = tracking {
            self.wake_position(tracking);
        }
    }

    /// Wakes the tasks that wait for this position.
    pub(crate) fn wake_position(&self, tracking: &Tracking) {
        if let Some(table) = &self.tracking {
            table.wake(|| [tracking.application_name()]);
        }
    }

    /// Requests a notification of the events table. Returns the permit to send it, unless a task has it,
    /// which then sends another one.
    pub(crate) fn start_sending(&self) -> Option<SendPermit> {
        let table = self.events.as_ref()?;
        table.is_send_pending.store(true, Atomic::SeqCst);
        Some(SendPermit { table: Arc::clone(table), permit: table.sender.acquire()? })
    }

    /// Waits until the notifications of the events table are sent.
    pub(crate) async fn wait_sent(&self) {
        if let Some(table) = &self.events {
            table.wait_sent().await;
        }
    }

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

impl WatchedTable {
    /// Adds the signal of another recorder.
    fn add_signal(self: &Arc<Self>, poll: impl Fn(PollPermit) + Send + Sync + 'static) -> Signal {
        let table = Arc::downgrade(self);
        let signal = Signal::on_first_listener(move || {
            let Some(table) = table.upgrade() else { return };
            if let Some(permit) = table.poller.acquire() {
                poll(PollPermit { table, permit });
            }
        });
        let mut signals = self.signals.lock();
        signals.retain(|signal| !signal.is_closed());
        signals.push(signal.clone());
        signal
    }

    /// Wakes the tasks that wait for one of these keys.
    pub(crate) fn wake<'k, K: IntoIterator<Item = &'k str>>(&self, keys: impl Fn() -> K) {
        self.signals.lock().iter().for_each(|signal| signal.wake(keys()));
    }

    pub(crate) fn wake_all(&self) {
        self.signals.lock().iter().for_each(Signal::wake_all);
    }

    async fn wait_sent(&self) {
        loop {
            // Before the check, so that an end in between is not missed.
            let sent = self.sent.notified();
            if !self.sender.is_taken() {
                return;
            }
            sent.await;
        }
    }

    fn has_listeners(&self) -> bool {
        self.signals.lock().iter().any(|signal| signal.has_listeners() && !signal.is_closed())
    }
}

impl PollPermit {
    /// Releases the permit if no task waits. Returns whether it is released.
    pub(crate) fn release_if_idle(&mut self) -> bool {
        self.permit.release_if(|| !self.table.has_listeners())
    }
}

impl SendPermit {
    /// Returns whether there is a notification to send; if not, the permit is released.
    pub(crate) fn take_pending(&mut self) -> bool {
        !self.permit.release_if(|| !self.table.is_send_pending.swap(false, Atomic::SeqCst))
    }
}

impl Drop for SendPermit {
    fn drop(&mut self) {
        self.permit.release_if(|| true);
        self.table.sent.notify_waiters();
    }
}

//! Short reads of what was read a moment ago, on the caller's own thread.
//!
//! Ten events of an aggregate take SQLite 5 µs; to wake a thread for them and to be woken by it take
//! some 13 µs more, and longer on a busy machine. A program that keeps events reads the same
//! aggregates again and again, so that detour would be most of what reading costs.
//!
//! The caller's thread belongs to its runtime and must not be kept waiting: only what is
//! [short](crate::short) is done there. A quick read is therefore tried only where a reader thread has just read the same aggregate, so that its pages are most
//! likely in memory; it waits for no lock of another call or connection, but for the moments for which
//! SQLite itself locks its index of the log; and it gives up after some tens of microseconds' worth of
//! rows. Whenever it gives up, a reader thread does the work. Now and then the caller's task yields to others first.

use std::{
    collections::HashSet,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use es_core::{EventRange, StoredEvent, uuid::Uuid};
use rusqlite::{Connection, limits::Limit};

use crate::{committer::weight, reader::Session, schema::EventTable, short::SHORT};

/// Of how many reads one is made after others had their turn: a task that only reads would never yield.
const YIELD_INTERVAL: u32 = 32;

/// How many aggregates are remembered at least, and half of how many at most.
const REMEMBERED: usize = 4_096;

/// A connection for quick reads.
#[derive(Debug)]
pub(crate) struct QuickReader {
    session: Mutex<Option<Session>>,
    calls: AtomicU32,
}

/// The aggregates of a table whose events were read a moment ago, and are few.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Uuid>,
    old: HashSet<Uuid>,
}

impl QuickReader {
    /// Prepares a connection: it waits for no locks, and has SQLite refuse what is over the bounds.
    pub(crate) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(Duration::ZERO)?;
        let bytes = i32::try_from(SHORT.bytes).unwrap_or(i32::MAX);
        connection.set_limit(
            Limit::SQLITE_LIMIT_LENGTH,
            bytes.min(connection.limit(Limit::SQLITE_LIMIT_LENGTH)?),
        )?;
        Ok(())
    }

    /// A reader on a connection that is prepared.
    pub(crate) fn new(connection: Option<Connection>) -> Self {
        Self { session: Mutex::new(connection.map(Session::new)), calls: AtomicU32::new(0) }
    }

    /// Whether the caller's task should yield before it reads.
    pub(crate) fn is_turn_of_others(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed) % YIELD_INTERVAL == YIELD_INTERVAL - 1
    }

    /// The events, if they can be had at once.
    pub(crate) fn select_events(
        &self,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Option<Vec<StoredEvent>> {
        if !table.recent.holds(originator_id) {
            return None;
        }
        let mut session = self.session.try_lock().ok()?;
        // An error is left to a reader thread, which waits for locks, and tells what is wrong.
        let events = session.as_mut()?.select_events_within(SHORT, table, originator_id, range).ok()?;
        if events.is_none() {
            table.recent.forget(originator_id);
        }
        events
    }

    /// Closes the connection.
    pub(crate) fn close(&self) {
        drop(self.session.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Recent {
    /// Remembers an aggregate whose events a reader thread has read, if they are few.
    pub(crate) fn remember(&self, originator_id: Uuid, events: &[StoredEvent]) {
        if SHORT.hold(events.len(), weight(events)) {
            self.lock().insert(originator_id);
        }
    }

    /// Forgets an aggregate that has outgrown the bounds.
    fn forget(&self, originator_id: Uuid) {
        let mut generations = self.lock();
        generations.young.remove(&originator_id);
        generations.old.remove(&originator_id);
    }

    /// Not if that cannot be said at once.
    fn holds(&self, originator_id: Uuid) -> bool {
        let Ok(mut generations) = self.0.try_lock() else { return false };
        if generations.young.contains(&originator_id) {
            return true;
        }
        let is_old = generations.old.contains(&originator_id);
        if is_old {
            generations.insert(originator_id);
        }
        is_old
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    /// Forgets what has not been read since the young generation was begun once it is full.
    fn insert(&mut self, originator_id: Uuid) {
        if self.young.len() == REMEMBERED {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(originator_id);
    }
}

//! Short reads of what was read a moment ago, on the caller's own thread.
//!
//! Ten events of an aggregate take SQLite 5 µs; to wake a thread for them and to be woken by it take
//! some 13 µs more, and longer on a busy machine. A program that keeps events reads the same
//! aggregates again and again, so that detour would be most of what reading costs.
//!
//! The caller's thread belongs to its runtime and must not be kept waiting. A quick read therefore
//! waits for nothing: it is tried only where a reader thread has just read the same aggregate, so
//! that its pages are in memory; it takes no lock that is held, in this process or in the database;
//! and it gives up after some tens of microseconds' worth of rows. Whenever it gives up, a reader
//! thread does the work.

use std::{
    collections::HashSet,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use es_core::{EventRange, StoredEvent, uuid::Uuid};
use rusqlite::Connection;

use crate::{
    reader::{ReadBounds, Session},
    schema::EventTable,
    writer::weight,
};

/// What a quick read takes at most: about 40 µs of work.
const BOUNDS: ReadBounds = ReadBounds { rows: 64, bytes: 64 << 10 };

/// How many aggregates are remembered at least, and half of how many at most.
const REMEMBERED: usize = 4_096;

/// A connection for quick reads.
#[derive(Debug)]
pub(crate) struct QuickReader(Mutex<Option<Session>>);

/// The aggregates of a table whose events were read a moment ago, and are few.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Uuid>,
    old: HashSet<Uuid>,
}

impl QuickReader {
    /// A reader on a connection that does not wait for locks.
    pub(crate) fn new(connection: Option<Connection>) -> Self {
        Self(Mutex::new(connection.map(Session::new)))
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
        let mut session = self.0.try_lock().ok()?;
        // An error is left to a reader thread, which waits for locks, and tells what is wrong.
        session.as_mut()?.select_events_within(BOUNDS, table, originator_id, range).ok()?
    }

    /// Closes the connection.
    pub(crate) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Recent {
    /// Remembers an aggregate whose events a reader thread has read, if they are few.
    pub(crate) fn remember(&self, originator_id: Uuid, events: &[StoredEvent]) {
        if events.len() <= BOUNDS.rows && weight(events) <= BOUNDS.bytes {
            self.lock().insert(originator_id);
        }
    }

    fn holds(&self, originator_id: Uuid) -> bool {
        let mut generations = self.lock();
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

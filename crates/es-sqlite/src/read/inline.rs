//! Short reads on the caller's own thread.
//!
//! Ten events of an aggregate take SQLite 5 µs, and 13 µs where their pages are not in SQLite's cache. Waking
//! a reader thread for them and being woken by it takes 15 µs more on a busy processor, and 70 to 90 where
//! one has to wake up, as in a program that does other work between its reads (`SQLite load, 10 events, cold`
//! of `cargo xtask bench`).
//!
//! The caller's thread belongs to its runtime and must not be blocked. An inline read
//! - is tried only while short reads of the table take less than [`LIMIT`] on average, as they do while the
//!   operating system has the pages of the file in memory. Reader threads measure it first, and go on to
//!   measure when it is exceeded;
//! - waits for no lock of another call or connection, except for the moments in which SQLite locks its index
//!   of the log;
//! - ends after the row that exceeds a number of rows, of bytes, or [`LIMIT`]. A row is one descent in the
//!   index and one in the table: two reads of the disk when only inner pages are cached.
//!
//! Each read takes from the cooperative budget of the caller's task, so that a task that only reads yields
//! after 128 reads.
//!
//! The worst case is a database whose pages have left memory since the last read: two slow reads in a row end
//! the inline reads, and each blocks its thread for `LIMIT` and for one row. Whatever is not read inline, a
//! reader thread reads.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use es_core::{EventRange, StoredEvent, uuid::Uuid};
use rusqlite::{Connection, limits::Limit};

use crate::{
    limits::{Pace, SHORT},
    read::select::Session,
    schema::tables::EventTable,
    write::worker::SharedCommitter,
};

/// The average time of short reads up to which they are inline; about that of the way to a reader thread and
/// back.
pub(crate) const LIMIT: Duration = Duration::from_micros(100);

/// The number of long aggregates that are remembered. When it is exceeded, all are forgotten.
const REMEMBERED: usize = 4_096;

/// A connection for inline reads.
pub(crate) enum InlineReader {
    /// One of its own, which waits for no locks.
    Own(Mutex<Option<Box<Session>>>),
    /// The writing connection, the only one of a database in memory.
    Writing(SharedCommitter),
}

/// The knowledge about a table that decides whether a read is tried inline.
#[derive(Debug)]
pub(crate) struct ReadTimes {
    pub(crate) latency: Pace,
    /// Aggregates with more events than an inline read takes, and the greatest `gt` for which that was found.
    long: Mutex<HashMap<Uuid, Option<i64>>>,
}

impl InlineReader {
    pub(crate) fn on(connection: Connection) -> Self {
        Self::Own(Mutex::new(Some(Box::new(Session::new(connection)))))
    }

    /// Returns the events if an inline read is possible.
    pub(crate) fn select_events(
        &self,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Option<Vec<StoredEvent>> {
        if !table.reads.may_be_inline(originator_id, range) {
            return None;
        }
        match self {
            Self::Own(session) => {
                let mut session = session.try_lock().ok()?;
                read(session.as_mut()?, table, originator_id, range)
            }
            Self::Writing(committer) => {
                let mut committer = committer.try_lock().ok()?;
                let session = &mut committer.as_mut()?.writing.session;
                // A transaction that could not be rolled back is the writer thread's.
                if !session.connection.is_autocommit() {
                    return None;
                }
                read(session, table, originator_id, range)
            }
        }
    }

    /// Closes the connection, if it is the reader's own.
    pub(crate) fn close(&self) {
        if let Self::Own(session) = self {
            drop(session.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// An error is left to a reader thread, which waits for locks and reports what is wrong.
fn read(
    session: &mut Session,
    table: &EventTable,
    originator_id: Uuid,
    range: EventRange,
) -> Option<Vec<StoredEvent>> {
    let bytes = i32::try_from(SHORT.bytes).unwrap_or(i32::MAX);
    let allowed = session.connection.limit(Limit::SQLITE_LIMIT_LENGTH).ok()?;
    // SQLite refuses a larger value before it reads it.
    session.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes.min(allowed)).ok()?;
    let events = session.select_events_within(SHORT, Some(LIMIT), table, originator_id, range);
    session.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, allowed).ok()?;
    events.ok()?
}

impl Default for ReadTimes {
    fn default() -> Self {
        Self { latency: Pace::new(LIMIT), long: Mutex::default() }
    }
}

impl ReadTimes {
    /// Remembers that the range has more events than an inline read takes.
    pub(crate) fn remember_long(&self, originator_id: Uuid, range: EventRange) {
        let Ok(mut long) = self.long.try_lock() else { return };
        if long.len() >= REMEMBERED {
            long.clear();
        }
        let gt = long.entry(originator_id).or_default();
        *gt = range.gt.max(*gt);
    }

    fn may_be_inline(&self, originator_id: Uuid, range: EventRange) -> bool {
        let is_limited = range.limit.is_some_and(|limit| limit <= SHORT.rows);
        let is_long = || {
            let known = self.long.try_lock().ok();
            known.is_some_and(|long| long.get(&originator_id).is_some_and(|gt| range.gt <= *gt))
        };
        self.latency.is_short() && (is_limited || !is_long())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_ranges_and_slow_reads_are_left_to_reader_threads() {
        let reads = ReadTimes::default();
        let (id, all) = (Uuid::from_u128(1), EventRange::all());
        assert!(!reads.may_be_inline(id, all), "nothing is known yet");
        (0..100).for_each(|_| reads.latency.learn(Duration::from_micros(10)));
        assert!(reads.may_be_inline(id, all));
        reads.remember_long(id, all.gt(100));
        for long in [all, all.gt(100), all.desc(), all.lte(2_000), all.limit(65)] {
            assert!(!reads.may_be_inline(id, long), "{long:?}");
            assert!(reads.may_be_inline(Uuid::nil(), long), "{long:?}");
        }
        for short in [all.gt(101), all.limit(64)] {
            assert!(reads.may_be_inline(id, short), "{short:?}");
        }
        (0..2).for_each(|_| reads.latency.learn(Duration::from_millis(10)));
        assert!(!reads.may_be_inline(id, all.limit(1)));
    }
}

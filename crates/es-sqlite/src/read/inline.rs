//! Inline reads: short reads of an aggregate on the caller's own thread.
//!
//! An optimisation: without this module, reader threads make all reads.
//!
//! Ten events of an aggregate take SQLite 5 µs, and 13 µs if their pages are not in SQLite's cache. Waking a
//! reader thread for them and being woken by it takes 15 µs more on a busy processor, and 70 to 90 µs if a
//! core has to wake up, as in a program that does other work between its reads (`SQLite load, 10 events,
//! cold` of `cargo xtask bench`).
//!
//! The caller's thread belongs to its runtime and must not be blocked. An inline read
//! - is tried only while short reads of the table take less than [`INLINE_READ_LATENCY`] on average, as they
//!   do while the operating system has the pages of the file in memory. Reader threads measure it first, and
//!   continue to measure when it is exceeded;
//! - waits for no lock of another call or connection, except for the moments in which SQLite locks its index
//!   of the write-ahead log;
//! - ends after the row that exceeds a number of rows, of bytes, or that time. A row is one descent in the
//!   index and one in the table: two reads of the disk if only inner pages are cached.
//!
//! The worst case is a database whose pages have left memory since the last read: two slow reads in a row end
//! the inline reads, and each blocks its thread for that time and for one row. Reader threads make all other
//! reads.

use std::{collections::HashMap, time::Instant};

use es_core::{EventRange, PersistenceError, StoredEvent, uuid::Uuid};
use parking_lot::Mutex;
use rusqlite::{Connection, limits::Limit};

use crate::{
    connection::Session,
    limits::{AverageLatency, INLINE_LIMITS, INLINE_READ_LATENCY},
    schema::EventTable,
    write::SharedCommitter,
};

/// The maximum number of long aggregates in the cache. When it is exceeded, the cache is cleared.
const MAX_LONG_AGGREGATES: usize = 4_096;

/// The connection for inline reads.
pub(crate) enum InlineReader {
    /// A connection of its own, which waits for no locks.
    Own(Mutex<Option<Box<Session>>>),
    /// The writing connection, the only one of a database in memory.
    Writing(SharedCommitter),
}

/// The measurements of one recorder's reads, which decide whether a read is tried inline.
#[derive(Debug)]
pub(crate) struct ReadStats {
    latency: AverageLatency,
    /// Aggregates with more events than an inline read takes, and the greatest `gt` for which that was found.
    long: Mutex<HashMap<Uuid, Option<i64>>>,
}

impl InlineReader {
    pub(crate) fn new(connection: Connection) -> Self {
        Self::Own(Mutex::new(Some(Box::new(Session::new(connection)))))
    }

    /// Returns the events if an inline read is possible.
    pub(crate) fn select_events(
        &self,
        stats: &ReadStats,
        table: &EventTable,
        originator_id: Uuid,
        range: EventRange,
    ) -> Option<Vec<StoredEvent>> {
        if !stats.may_be_inline(originator_id, range) {
            return None;
        }
        match self {
            Self::Own(session) => {
                let mut session = session.try_lock()?;
                read(session.as_mut()?, stats, table, originator_id, range)
            }
            Self::Writing(committer) => {
                let mut committer = committer.try_lock()?;
                let session = &mut committer.as_mut()?.writing.session;
                // A transaction that could not be rolled back belongs to the writer thread.
                if !session.connection.is_autocommit() {
                    return None;
                }
                read(session, stats, table, originator_id, range)
            }
        }
    }

    /// Closes the connection, if it is the reader's own.
    pub(crate) fn close(&self) {
        if let Self::Own(session) = self {
            drop(session.lock().take());
        }
    }
}

/// Reads within the limits. An error is left to a reader thread, which waits for locks and reports it.
fn read(
    session: &mut Session,
    stats: &ReadStats,
    table: &EventTable,
    originator_id: Uuid,
    range: EventRange,
) -> Option<Vec<StoredEvent>> {
    let began = Instant::now();
    let max_bytes = i32::try_from(INLINE_LIMITS.bytes).unwrap_or(i32::MAX);
    let allowed = session.connection.limit(Limit::SQLITE_LIMIT_LENGTH).ok()?;
    // SQLite refuses a larger value before it reads it.
    session.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, max_bytes.min(allowed)).ok()?;
    let (mut is_long, mut is_slow) = (false, false);
    let events = session.select_events_while(table, originator_id, range, |rows, bytes| {
        is_long = !INLINE_LIMITS.contain(rows, bytes);
        is_slow = began.elapsed() > INLINE_READ_LATENCY;
        !is_long && !is_slow
    });
    session.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, allowed).ok()?;
    let events = events.ok()?;
    if is_long {
        stats.remember_long(originator_id, range);
        return None;
    }
    stats.latency.record(began.elapsed());
    (!is_slow).then_some(events)
}

impl Default for ReadStats {
    fn default() -> Self {
        Self { latency: AverageLatency::new(INLINE_READ_LATENCY), long: Mutex::default() }
    }
}

impl ReadStats {
    /// Makes a read on a reader thread, and records its time if it is short.
    pub(crate) fn measure(
        &self,
        read: impl FnOnce() -> Result<Vec<StoredEvent>, PersistenceError>,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let began = Instant::now();
        let events = read()?;
        let elapsed = began.elapsed();
        if INLINE_LIMITS.contain(events.len(), events.iter().map(|event| event.state.len()).sum()) {
            self.latency.record(elapsed);
        }
        Ok(events)
    }

    /// Remembers that the range has more events than an inline read takes.
    fn remember_long(&self, originator_id: Uuid, range: EventRange) {
        let Some(mut long) = self.long.try_lock() else { return };
        if long.len() >= MAX_LONG_AGGREGATES {
            long.clear();
        }
        let gt = long.entry(originator_id).or_default();
        *gt = range.gt.max(*gt);
    }

    fn may_be_inline(&self, originator_id: Uuid, range: EventRange) -> bool {
        let is_limited = range.limit.is_some_and(|limit| limit <= INLINE_LIMITS.rows);
        let is_long = || {
            let long = self.long.try_lock();
            long.is_some_and(|long| long.get(&originator_id).is_some_and(|gt| range.gt <= *gt))
        };
        self.latency.is_short() && (is_limited || !is_long())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn long_ranges_and_slow_reads_are_left_to_reader_threads() {
        let stats = ReadStats::default();
        let (id, all) = (Uuid::from_u128(1), EventRange::all());
        assert!(!stats.may_be_inline(id, all), "no measurements yet");
        (0..100).for_each(|_| stats.latency.record(Duration::from_micros(10)));
        assert!(stats.may_be_inline(id, all));
        stats.remember_long(id, all.gt(100));
        for long in [all, all.gt(100), all.desc(), all.lte(2_000), all.limit(65)] {
            assert!(!stats.may_be_inline(id, long), "{long:?}");
            assert!(stats.may_be_inline(Uuid::nil(), long), "{long:?}");
        }
        for short in [all.gt(101), all.limit(64)] {
            assert!(stats.may_be_inline(id, short), "{short:?}");
        }
        (0..2).for_each(|_| stats.latency.record(Duration::from_millis(10)));
        assert!(!stats.may_be_inline(id, all.limit(1)));
    }
}

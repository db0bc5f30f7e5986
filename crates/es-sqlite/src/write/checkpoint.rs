//! Keeping the write-ahead log from growing without bound.
//!
//! SQLite copies the log into the database of its own accord, within the commit that makes the log
//! long. The writer thread does so instead, at the same length, after the commit is acknowledged: it takes
//! milliseconds, and some commits run on callers' threads. SQLite begins the log anew only at a moment at
//! which nobody reads; and a log that has grown keeps its size. Where reads overlap all the time, that
//! moment never comes, and the writer thread makes one.

use std::{cell::Cell, fs, path::PathBuf, time::Duration};

use rusqlite::Connection;

/// A log of so many pages is copied into the database, as SQLite does by default.
const LONG: u32 = 1_000;

/// A log that is larger is emptied.
const MOST_BYTES: u64 = 64 << 20;

/// How long emptying waits for the reads that need the log. Those that begin meanwhile do not.
const PATIENCE: Duration = Duration::from_millis(250);

thread_local! {
    /// The pages in the log after the last commit of this thread. SQLite tells them to a function
    /// without a state of its own, on the thread that commits.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The log of a database, as the writer thread sees it.
pub(crate) struct Log {
    path: PathBuf,
    /// At which size it is to be emptied next.
    bound: u64,
}

/// Leaves copying the log of this connection to its user.
pub(crate) fn leave_alone(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        PAGES.set(u32::try_from(pages).unwrap_or(0));
        Ok(())
    }));
}

/// Whether the last commit of this thread, if it wrote anything, has left the log long; said once.
pub(crate) fn was_left_long() -> bool {
    PAGES.take() >= LONG
}

impl Log {
    /// The log of the database of a connection; nothing for a database in memory.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let path = connection.path().filter(|path| !path.is_empty())?;
        Some(Self { path: format!("{path}-wal").into(), bound: MOST_BYTES })
    }

    /// Copies a long log into the database, and empties it if it is large. That must not disturb the
    /// writer: whatever fails is tried again after the next commit, or when the log has grown as much
    /// once more.
    pub(crate) fn tidy(&mut self, connection: &Connection, lock_timeout: Duration) {
        if let Err(error) = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::debug!(%error, "the write-ahead log cannot be copied into the database");
        }
        let bytes = self.bytes();
        if bytes <= self.bound {
            return;
        }
        if let Err(error) = empty(connection, lock_timeout) {
            tracing::warn!(%error, bytes, "the write-ahead log cannot be emptied");
        }
        self.bound = self.bytes() + MOST_BYTES;
    }

    fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }
}

fn empty(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE.min(lock_timeout))?;
    let emptied = checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    connection.busy_timeout(lock_timeout)?;
    emptied
}

/// That it could not wait longer is told in the row, not by an error.
fn checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
    connection.query_row(pragma, (), |_| Ok(()))
}

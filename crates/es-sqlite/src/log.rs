//! Keeping the write-ahead log from growing without bound.
//!
//! SQLite copies the log into the database of its own accord, but begins it anew only at a moment at
//! which nobody reads; and a log that has grown keeps its size. Where reads overlap all the time, that
//! moment never comes.

use std::{fs, path::PathBuf, time::Duration};

use rusqlite::Connection;

/// A log that is larger is emptied.
const MOST_BYTES: u64 = 64 << 20;

/// How long emptying waits for the reads that need the log. Those that begin meanwhile do not.
const PATIENCE: Duration = Duration::from_millis(250);

/// The log of a database, as the writer sees it.
pub(crate) struct Log {
    path: PathBuf,
    /// At which size it is to be emptied next.
    bound: u64,
}

impl Log {
    /// The log of the database of a connection; nothing for a database in memory.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let path = connection.path().filter(|path| !path.is_empty())?;
        Some(Self { path: format!("{path}-wal").into(), bound: MOST_BYTES })
    }

    /// Empties the log if it is large, which must not disturb the writer: whatever fails is tried
    /// again when the log has grown as much once more.
    pub(crate) fn tidy(&mut self, connection: &Connection, lock_timeout: Duration) {
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
    // That it could not wait longer is told in the row, not by an error.
    let emptied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()));
    connection.busy_timeout(lock_timeout)?;
    emptied
}

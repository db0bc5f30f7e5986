//! Checkpoints, which keep the write-ahead log from growing without bound.
//!
//! By default, SQLite copies the log into the database within the commit that makes the log long. The writer
//! thread does it instead, at the same length, after the commit is acknowledged: it takes milliseconds, and
//! some commits run on callers' threads. SQLite restarts the log only at a moment without reads, and a log
//! that has grown keeps its size. If reads overlap all the time, there is no such moment, and the writer
//! thread makes one.

use std::{cell::Cell, fs, path::PathBuf, time::Duration};

use rusqlite::Connection;

/// The number of pages in the log that trigger a checkpoint; SQLite's default.
const CHECKPOINT_PAGES: u32 = 1_000;

/// A larger log is truncated.
const MAX_BYTES: u64 = 64 << 20;

/// The maximum wait of a truncation for reads that need the log. Reads that begin meanwhile do not wait.
const TRUNCATE_TIMEOUT: Duration = Duration::from_millis(250);

thread_local! {
    /// The pages in the log after the last commit of this thread. SQLite passes them to a function without
    /// state of its own, on the thread that commits.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The checkpoints of the writer thread.
pub(crate) struct Checkpointer {
    log: PathBuf,
    /// The size of the log at which it is truncated next.
    max_bytes: u64,
}

/// Disables SQLite's own checkpoints on this connection.
pub(crate) fn disable_autocheckpoint(connection: &Connection) {
    connection.wal_hook(Some(|_, pages| {
        PAGES.set(u32::try_from(pages).unwrap_or(0));
        Ok(())
    }));
}

/// Returns true once if the last commit of this thread has left a long log.
pub(crate) fn needs_checkpoint() -> bool {
    PAGES.take() >= CHECKPOINT_PAGES
}

impl Checkpointer {
    /// Returns the checkpointer of a connection's database; `None` for a database in memory.
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let path = connection.path().filter(|path| !path.is_empty())?;
        Some(Self { log: format!("{path}-wal").into(), max_bytes: MAX_BYTES })
    }

    /// Copies the log into the database, and truncates it if it is large. Errors do not affect writes: the
    /// next try is after the next commit, or when the log has grown by as much again.
    pub(crate) fn checkpoint(&mut self, connection: &Connection, lock_timeout: Duration) {
        if let Err(error) = checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::debug!(%error, "the write-ahead log cannot be copied into the database");
        }
        let bytes = self.bytes();
        if bytes <= self.max_bytes {
            return;
        }
        if let Err(error) = truncate(connection, lock_timeout) {
            tracing::warn!(%error, bytes, "the write-ahead log cannot be truncated");
        }
        self.max_bytes = self.bytes() + MAX_BYTES;
    }

    fn bytes(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |file| file.len())
    }
}

fn truncate(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(TRUNCATE_TIMEOUT.min(lock_timeout))?;
    let truncated = checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    connection.busy_timeout(lock_timeout)?;
    truncated
}

/// Runs a checkpoint. A timeout is reported in the row, not by an error, and is ignored.
fn checkpoint(connection: &Connection, pragma: &str) -> rusqlite::Result<()> {
    connection.query_row(pragma, (), |_| Ok(()))
}

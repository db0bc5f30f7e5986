//! The poll for commits of other connections, in this process and in others.
//!
//! SQLite does not notify about them. `PRAGMA data_version` changes when another connection has committed,
//! and does not change when this connection commits. On the writing connection, it therefore wakes no
//! listener for the writer's own commits, which have fired the signals already.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::signals::Signals;

/// Polls for commits of other connections, once an interval, while there are listeners.
pub(crate) struct CommitPoller {
    interval: Duration,
    /// The time of the next poll; `None` without listeners.
    due: Option<Instant>,
    /// The version at the last poll. It is kept while there are no listeners, so that the first poll for a
    /// new listener finds all commits since.
    version: Option<i64>,
}

impl CommitPoller {
    /// Creates a poller, which does not poll before it is started.
    pub(crate) fn new(connection: &Connection, interval: Duration) -> Self {
        Self { interval, due: None, version: data_version(connection).ok() }
    }

    /// Starts polling now.
    pub(crate) fn start(&mut self) {
        self.due.get_or_insert_with(Instant::now);
    }

    /// Returns the time of the next poll; `None` without listeners.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Polls if it is due.
    pub(crate) fn poll(&mut self, connection: &Connection, signals: &Signals) {
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        if signals.stop_polling() {
            self.due = None;
            return;
        }
        self.due = Some(now + self.interval);
        let version = match data_version(connection) {
            Ok(version) => version,
            // Reads report the error. After it, there may be new commits.
            Err(error) => {
                tracing::debug!(%error, "cannot poll for commits of other connections");
                self.version = None;
                return;
            }
        };
        if self.version.replace(version) != Some(version) {
            signals.wake_all();
        }
    }
}

/// Returns a number that changes when another connection commits.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row((), |row| row.get(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test unwraps the values that it expects")]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS a (b)").unwrap();
        connection
    }

    #[test]
    fn the_version_changes_only_with_commits_of_other_connections() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let (own, other) = (open(&path), open(&path));
        let version = data_version(&own).unwrap();
        for statements in [
            "INSERT INTO a VALUES (1)",
            "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); ROLLBACK",
            "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); SAVEPOINT c; INSERT INTO a VALUES (2); \
             ROLLBACK TO c; COMMIT",
            "CREATE TABLE d (e)",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "BEGIN IMMEDIATE; INSERT INTO a VALUES (3); COMMIT",
        ] {
            own.execute_batch(statements).unwrap();
            assert_eq!(data_version(&own).unwrap(), version, "{statements}");
        }
        other.execute_batch("BEGIN IMMEDIATE; INSERT INTO a VALUES (1); ROLLBACK").unwrap();
        assert_eq!(data_version(&own).unwrap(), version);
        other.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        let changed = data_version(&own).unwrap();
        assert_ne!(changed, version);
        // An own transaction in between hides nothing.
        other.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        own.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        assert_ne!(data_version(&own).unwrap(), changed);
    }
}

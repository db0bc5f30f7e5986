//! Noticing what other connections commit: those of other processes, and of this one.
//!
//! SQLite tells nobody. But `PRAGMA data_version` has another value when another connection has
//! committed since it was last asked, and the same one whatever this connection has committed itself.
//! Asked on the writer's connection, it therefore wakes nobody for what the writer has recorded and
//! told already.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::follow::signals::Signals;

/// Looks for commits of others, once an interval, while somebody waits for them.
pub(crate) struct Watch {
    interval: Duration,
    /// When to look next; nothing while nobody listens.
    due: Option<Instant>,
    /// What the version was when it was last looked. It is kept while nobody listens: compared with
    /// it, nothing that was committed before the first look for a new listener is passed over.
    seen: Option<i64>,
}

impl Watch {
    /// Does not look again before it is started.
    pub(crate) fn new(connection: &Connection, interval: Duration) -> Self {
        Self { interval, due: None, seen: data_version(connection).ok() }
    }

    /// Looks from now on.
    pub(crate) fn start(&mut self) {
        self.due.get_or_insert_with(Instant::now);
    }

    /// When to look next; nothing while nobody listens.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Looks, if it is time to.
    pub(crate) fn look(&mut self, connection: &Connection, signals: &Signals) {
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        if signals.stop_watching() {
            self.due = None;
            return;
        }
        self.due = Some(now + self.interval);
        let version = match data_version(connection) {
            Ok(version) => version,
            // Whoever reads meets what is wrong. Once it is well again, something may have happened.
            Err(error) => {
                tracing::debug!(%error, "cannot look for what others have committed");
                self.seen = None;
                return;
            }
        };
        if self.seen.replace(version) != Some(version) {
            signals.recorded_by_others();
        }
    }
}

/// A number that is another one when another connection has committed meanwhile.
pub(crate) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row((), |row| row.get(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS a (b)").unwrap();
        connection
    }

    #[test]
    fn the_version_changes_with_commits_of_others_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let (own, other) = (open(&path), open(&path));
        let version = data_version(&own).unwrap();
        for statements in [
            "INSERT INTO a VALUES (1)",
            "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); ROLLBACK",
            "BEGIN IMMEDIATE; INSERT INTO a VALUES (1); SAVEPOINT c; INSERT INTO a VALUES (2); ROLLBACK TO c; COMMIT",
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
        // A transaction of its own that comes in between conceals nothing.
        other.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        own.execute_batch("INSERT INTO a VALUES (1)").unwrap();
        assert_ne!(data_version(&own).unwrap(), changed);
    }
}

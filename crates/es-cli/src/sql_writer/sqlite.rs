//! Writes to a file of SQLite.

use std::time::Duration;

use es_core::Notification;
use es_sqlite::rusqlite::{self, Connection, OpenFlags, TransactionBehavior, params};

use super::moved::moved;
use crate::{catalog::sqlite::failed, failure::Failure};

pub(crate) struct SqliteWriter {
    name: String,
    connection: Connection,
}

impl SqliteWriter {
    pub(super) fn open(name: &str) -> Result<Self, Failure> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(name, flags)?;
            connection.busy_timeout(Duration::from_secs(30))?;
            // As the recorders: a commit is on the disk.
            connection.pragma_update(None, "synchronous", "EXTRA")?;
            Ok(connection)
        };
        let connection = open().map_err(|error| failed(name, error))?;
        Ok(Self { name: name.to_owned(), connection })
    }

    pub(super) fn append(
        &mut self,
        notifications: &[Notification],
        consumer: &str,
        expected: i64,
    ) -> Result<(), Failure> {
        let Some(last) = notifications.last() else { return Ok(()) };
        let write = |connection: &mut Connection| -> rusqlite::Result<i64> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let select = "SELECT coalesce(max(notification_id), 0) FROM tracking WHERE application_name = ?1";
            let recorded = transaction.query_row(select, [consumer], |row| row.get(0))?;
            if recorded != expected {
                return Ok(recorded);
            }
            let mut insert = transaction.prepare_cached(
                "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for Notification { id, event } in notifications {
                let originator_id = event.originator_id.simple().to_string();
                let (topic, state) = (event.topic.as_str(), &*event.state);
                insert.execute(params![id, originator_id, event.originator_version, topic, state])?;
            }
            drop(insert);
            // Replaces the row of the consumer, or adds one in the layout with one row for each record.
            let track = "INSERT OR REPLACE INTO tracking (application_name, notification_id) VALUES (?1, ?2)";
            transaction.execute(track, params![consumer, last.id])?;
            transaction.commit()?;
            Ok(expected)
        };
        let recorded = write(&mut self.connection).map_err(|error| failed(&self.name, error))?;
        if recorded == expected { Ok(()) } else { Err(moved(consumer, expected, recorded)) }
    }

    pub(super) fn set_position(
        &mut self,
        consumer: &str,
        expected: Option<i64>,
        position: Option<i64>,
    ) -> Result<(), Failure> {
        let write = |connection: &mut Connection| -> rusqlite::Result<Option<i64>> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let select = "SELECT max(notification_id) FROM tracking WHERE application_name = ?1";
            let recorded = transaction.query_row(select, [consumer], |row| row.get(0))?;
            if recorded != expected {
                return Ok(recorded);
            }
            transaction.execute("DELETE FROM tracking WHERE application_name = ?1", [consumer])?;
            if let Some(position) = position {
                let insert = "INSERT INTO tracking (application_name, notification_id) VALUES (?1, ?2)";
                transaction.execute(insert, params![consumer, position])?;
            }
            transaction.commit()?;
            Ok(expected)
        };
        let recorded = write(&mut self.connection).map_err(|error| failed(&self.name, error))?;
        let is_moved = recorded != expected;
        if is_moved { Err(moved(consumer, expected.unwrap_or(0), recorded.unwrap_or(0))) } else { Ok(()) }
    }
}

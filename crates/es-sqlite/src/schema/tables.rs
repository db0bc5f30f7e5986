//! The tables of the Python library, and the statements on them.

use es_core::{EventRange, PersistenceError};
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{from_sqlite, is_refused_statement};

/// The table of an application's events.
const APPLICATION_EVENTS: &str = "stored_events";

/// A table of events, with the texts of its statements.
#[derive(Debug)]
pub(crate) struct EventTable {
    pub(crate) name: String,
    /// True if the rowid is the notification id of an event.
    pub(crate) is_numbered: bool,
    pub(crate) create: String,
    pub(crate) insert: String,
    pub(crate) select_max_id: String,
    pub(crate) select_notifications: String,
    pub(crate) select_notifications_of_topics: String,
    pub(crate) select_same: String,
    select: [String; 8],
}

impl EventTable {
    /// Returns the table of an application or process recorder; the rowid is the notification id.
    pub(crate) fn of_application() -> Self {
        Self::new(APPLICATION_EVENTS.to_owned(), true)
    }

    /// Returns the table of an aggregate recorder for `purpose`.
    pub(crate) fn for_purpose(purpose: &str) -> Result<Self, PersistenceError> {
        check_name("purpose", purpose)?;
        Ok(Self::new(format!("stored_{purpose}"), false))
    }

    /// Returns the table with this name.
    pub(crate) fn named(name: &str, is_numbered: bool) -> Result<Self, PersistenceError> {
        check_name("table name", name)?;
        Ok(Self::new(name.to_owned(), is_numbered))
    }

    fn new(name: String, is_numbered: bool) -> Self {
        let table = format!("\"{name}\"");
        let (number, values) = if is_numbered { ("rowid, ", "?5, ") } else { ("", "") };
        let notifications = format!(
            "SELECT rowid, originator_id, originator_version, topic, state FROM {table} \
             WHERE rowid >= ?1 AND rowid <= ?2"
        );
        let same_number = if is_numbered { " AND rowid = ?5" } else { "" };
        Self {
            create: format!(
                "CREATE TABLE IF NOT EXISTS {table} (originator_id TEXT, originator_version INTEGER, \
                 topic TEXT, state BLOB, PRIMARY KEY (originator_id, originator_version)){}",
                if is_numbered { "" } else { " WITHOUT ROWID" }
            ),
            insert: format!(
                "INSERT INTO {table} ({number}originator_id, originator_version, topic, state) \
                 VALUES ({values}?1, ?2, ?3, ?4)"
            ),
            select_max_id: format!("SELECT MAX(rowid) FROM {table}"),
            select_notifications: format!("{notifications} ORDER BY rowid"),
            select_notifications_of_topics: format!("{notifications} AND topic IN rarray(?3) ORDER BY rowid"),
            select_same: format!(
                "SELECT 1 FROM {table} WHERE originator_id = ?1 AND originator_version = ?2 \
                 AND topic = ?3 AND state = ?4{same_number}"
            ),
            select: std::array::from_fn(|choice| select_events(&table, choice)),
            name,
            is_numbered,
        }
    }

    /// Returns the highest notification id of the table.
    pub(crate) fn max_notification_id(&self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(&self.select_max_id)?.query_row((), |row| row.get(0))
    }

    /// Returns the statement that selects events within `range`: ?1 the originator, ?2 `gt`, ?3 `lte`.
    ///
    /// It has no `LIMIT`; the caller stops reading. SQLite prepares a statement anew whenever a bound limit
    /// is set, which took 4.6 µs of the 8.5 µs that reading ten events took.
    pub(crate) fn select(&self, range: &EventRange) -> &str {
        let choice = usize::from(range.gt.is_some())
            | usize::from(range.lte.is_some()) << 1
            | usize::from(range.desc) << 2;
        &self.select[choice]
    }
}

fn check_name(what: &str, name: &str) -> Result<(), PersistenceError> {
    let is_allowed = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
    if !name.is_empty() && name.chars().all(is_allowed) {
        return Ok(());
    }
    Err(PersistenceError::programming(format!(
        "{what} {name:?} is not a table name: use letters, digits, '_', '-' and '.' only"
    )))
}

/// An absent bound is left out, not replaced by the lowest or highest version: a row whose version is no
/// integer must be an error, not be skipped.
fn select_events(table: &str, choice: usize) -> String {
    let gt = if choice & 1 == 0 { "" } else { " AND originator_version > ?2" };
    let lte = if choice & 2 == 0 { "" } else { " AND originator_version <= ?3" };
    let direction = if choice & 4 == 0 { "ASC" } else { "DESC" };
    format!(
        "SELECT originator_version, topic, state FROM {table} WHERE originator_id = ?1{gt}{lte} \
         ORDER BY originator_version {direction}"
    )
}

/// The statements on the tracking table. They serve both of its layouts, one row per position (Python library
/// 9.1) and one per application (9.5), also when a Python process migrates the table meanwhile.
pub(crate) mod tracking {
    /// The layout of 9.5, which new databases get.
    pub(super) const CREATE: &str = "CREATE TABLE tracking (application_name TEXT, notification_id INTEGER, \
         PRIMARY KEY (application_name)) WITHOUT ROWID";
    /// Marks the layout as the new one; otherwise the Python library would migrate it.
    pub(super) const MARK: &str = "INSERT INTO tracking VALUES ('__migration__', 1)";
    pub(crate) const SELECT_MAX: &str =
        "SELECT MAX(notification_id) FROM tracking WHERE application_name = ?1";
    /// Replaces the row if the layout has one per application, and adds one if it has one per position.
    /// Inserts nothing if the recorded position is not the expected one (`?4`) or, if none is expected, not
    /// before the first notification (`?3`).
    pub(crate) const INSERT: &str = "INSERT OR REPLACE INTO tracking (application_name, notification_id) \
         SELECT ?1, ?2 WHERE CASE WHEN ?4 IS NULL THEN NOT EXISTS \
         (SELECT 1 FROM tracking WHERE application_name = ?1 AND notification_id >= ?3) \
         ELSE ?4 = COALESCE((SELECT MAX(notification_id) FROM tracking WHERE application_name = ?1), 0) END";
}

/// Returns the recorded position of an application.
pub(crate) fn max_tracking_id(
    connection: &Connection,
    application_name: &str,
) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(tracking::SELECT_MAX)?.query_row((application_name,), |row| row.get(0))
}

/// Creates the table of events if it is missing.
pub(crate) fn create_events(connection: &mut Connection, table: &EventTable) -> Result<(), PersistenceError> {
    if !exists(connection, &table.name).map_err(from_sqlite)? {
        connection.execute_batch(&table.create).map_err(from_sqlite)?;
    }
    if table.is_numbered { verify_rowid(connection, table) } else { Ok(()) }
}

/// Refuses a table of an aggregate recorder: it has no notification ids.
fn verify_rowid(connection: &Connection, table: &EventTable) -> Result<(), PersistenceError> {
    let Err(error) = connection.prepare_cached(&table.select_max_id) else { return Ok(()) };
    if !is_refused_statement(&error) {
        return Err(from_sqlite(error));
    }
    let message =
        format!("table {:?} was created for an aggregate recorder: it has no notification ids", table.name);
    Err(PersistenceError::programming(message).with_source(error))
}

/// Creates the tracking table if it is missing; an existing one is used as it is.
pub(crate) fn create_tracking(connection: &mut Connection) -> Result<(), PersistenceError> {
    let mut create = || {
        if exists(connection, "tracking")? {
            return Ok(());
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have created it meanwhile.
        if !exists(&transaction, "tracking")? {
            transaction.execute(tracking::CREATE, ())?;
            transaction.execute(tracking::MARK, ())?;
        }
        transaction.commit()
    };
    create().map_err(from_sqlite)
}

/// Looks for a table before it is created, because a read-only or locked database may have its tables.
///
/// A statement sees the tables that other processes created; SQLite's function for it covers only the
/// connection's own view.
pub(crate) fn exists(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    let mut select = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE")?;
    select.exists((table,))
}

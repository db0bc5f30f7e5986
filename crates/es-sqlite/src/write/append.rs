//! What one request writes, within a transaction that somebody else commits.

use std::error::Error as _;

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking, uuid::Uuid};
use rusqlite::{CachedStatement, Connection};

use crate::{
    error::{from_sqlite, is_taken_key, is_too_big},
    schema::tables::{EventTable, tracking},
};

/// Appends events and a tracking record, all or nothing, and returns the notification ids, which are
/// greater than `highest`.
pub(crate) fn append(
    connection: &Connection,
    table: &EventTable,
    events: &[StoredEvent],
    tracking: Option<&Tracking>,
    highest: i64,
) -> Result<Vec<i64>, PersistenceError> {
    // A statement is all or nothing by itself, unless a trigger skips its row: what the trigger wrote
    // stays, and without a savepoint the whole transaction has to be rolled back.
    if events.len() + usize::from(tracking.is_some()) == 1 {
        let result = append_unguarded(connection, table, events, tracking, highest);
        if result.as_ref().is_err_and(is_skipped) {
            execute(connection, "ROLLBACK").map_err(from_sqlite)?;
        }
        return result;
    }
    execute(connection, "SAVEPOINT request").map_err(from_sqlite)?;
    let result = append_unguarded(connection, table, events, tracking, highest);
    // Some errors (a full disk among them) may make SQLite roll the whole transaction back, and the
    // savepoint with it.
    if connection.is_autocommit() {
        return result;
    }
    if let Err(error) = end_savepoint(connection, result.is_ok()) {
        // What is left of the request must not be committed with the others'.
        execute(connection, "ROLLBACK").map_err(from_sqlite)?;
        return Err(from_sqlite(error));
    }
    result
}

/// Appends as [`append`] does. When that fails, a part of it may stand in the transaction, which must be rolled back, to a
/// savepoint or as a whole.
pub(crate) fn append_unguarded(
    connection: &Connection,
    table: &EventTable,
    events: &[StoredEvent],
    tracking: Option<&Tracking>,
    highest: i64,
) -> Result<Vec<i64>, PersistenceError> {
    if let Some(tracking) = tracking {
        insert_tracking(connection, tracking)?;
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    if !table.is_numbered {
        insert_events(connection, table, events, |_, _| Ok(()))?;
        return Ok(Vec::new());
    }
    let recorded = max_id(connection, table)?;
    if recorded < highest {
        tracing::warn!(
            table = table.name,
            recorded,
            highest,
            "another program has deleted the latest notifications; their ids are not used again"
        );
    }
    let ids = ids_after(recorded.max(highest), table, events.len())?;
    // What SQLite chooses for NULL is the next id, too, and costs less to insert.
    let is_left_to_sqlite = recorded >= highest && ids.last().is_some_and(|last| *last < i64::MAX);
    insert_events(connection, table, events, |insert, index| {
        insert.raw_bind_parameter(5, if is_left_to_sqlite { None } else { ids.get(index) })
    })?;
    Ok(ids)
}

/// Whether exactly these events stand in the table.
pub(crate) fn are_recorded(
    connection: &Connection,
    table: &EventTable,
    events: &[StoredEvent],
    ids: &[i64],
) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(&table.select_same)?;
    for (index, event) in events.iter().enumerate() {
        bind_event(&mut select, event)?;
        if table.is_numbered {
            select.raw_bind_parameter(5, ids.get(index))?;
        }
        if select.raw_query().next()?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The position that is recorded for an application.
pub(crate) fn max_tracking_id(
    connection: &Connection,
    application_name: &str,
) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached(tracking::SELECT_MAX)?.query_row((application_name,), |row| row.get(0))
}

/// The notification ids of the next `count` events.
///
/// SQLite would choose the same, but at random once the highest there is has been taken, and so break the order.
pub(crate) fn ids_after(
    highest: i64,
    table: &EventTable,
    count: usize,
) -> Result<Vec<i64>, PersistenceError> {
    let last = i64::try_from(count).ok().and_then(|count| highest.checked_add(count));
    match last {
        Some(last) => Ok((highest + 1..=last).collect()),
        None => Err(PersistenceError::operational(format!(
            "table {:?} has fewer than {count} notification ids left after {highest}",
            table.name
        ))),
    }
}

/// A UUID as it is stored: 32 hex digits.
pub(crate) fn with_stored_id<T>(id: Uuid, usage: impl FnOnce(&str) -> T) -> T {
    usage(id.simple().encode_lower(&mut Uuid::encode_buffer()))
}

fn end_savepoint(connection: &Connection, is_kept: bool) -> rusqlite::Result<()> {
    if !is_kept {
        execute(connection, "ROLLBACK TO request")?;
    }
    execute(connection, "RELEASE request")
}

fn insert_tracking(connection: &Connection, tracking: &Tracking) -> Result<(), PersistenceError> {
    let application_name = tracking.application_name();
    let inserted = connection
        .prepare_cached(tracking::INSERT)
        .and_then(|mut insert| {
            insert.execute((
                application_name,
                tracking.notification_id(),
                tracking.first_notification_id(),
                tracking.expected_position(),
            ))
        })
        .map_err(from_sqlite)?;
    if inserted == 1 {
        return Ok(());
    }
    let recorded = max_tracking_id(connection, application_name).map_err(from_sqlite)?;
    Err(not_inserted(tracking, recorded, inserted))
}

/// Why a tracking record was not inserted, given the recorded position.
pub(crate) fn not_inserted(tracking: &Tracking, recorded: Option<i64>, inserted: usize) -> PersistenceError {
    if let Err(refusal) = tracking.validate(recorded) {
        return refusal;
    }
    let name = tracking.application_name();
    skipped("tracking", inserted).with_context(format_args!("the position of application {name:?}"))
}

/// The error for a row that a statement did not insert although it succeeded.
fn skipped(table: &str, inserted: usize) -> PersistenceError {
    let message = format!(
        "table {table:?} took {inserted} rows instead of 1: a trigger on it may skip rows (RAISE(IGNORE)), \
         which must not happen"
    );
    let source = rusqlite::Error::StatementChangedRows(inserted);
    PersistenceError::new(ErrorKind::Integrity, message).with_source(source)
}

fn is_skipped(error: &PersistenceError) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    matches!(source, Some(rusqlite::Error::StatementChangedRows(_)))
}

/// Checks that inserting an event inserted one row.
pub(crate) fn require_inserted(
    table: &EventTable,
    event: &StoredEvent,
    inserted: usize,
) -> Result<(), PersistenceError> {
    if inserted == 1 { Ok(()) } else { Err(skipped(&table.name, inserted).with_event(&event.context())) }
}

/// The highest notification id of the table, 0 if it is empty.
fn max_id(connection: &Connection, table: &EventTable) -> Result<i64, PersistenceError> {
    let max_id: Option<i64> = connection
        .prepare_cached(&table.select_max_id)
        .and_then(|mut select| select.query_row((), |row| row.get(0)))
        .map_err(from_sqlite)?;
    Ok(max_id.unwrap_or(0))
}

fn insert_events(
    connection: &Connection,
    table: &EventTable,
    events: &[StoredEvent],
    bind_id: impl Fn(&mut CachedStatement<'_>, usize) -> rusqlite::Result<()>,
) -> Result<(), PersistenceError> {
    let mut insert = connection.prepare_cached(&table.insert).map_err(from_sqlite)?;
    for (index, event) in events.iter().enumerate() {
        let inserted = bind_event(&mut insert, event)
            .and_then(|()| bind_id(&mut insert, index))
            .and_then(|()| insert.raw_execute())
            .map_err(|error| refusal(event, error))?;
        require_inserted(table, event, inserted)?;
    }
    Ok(())
}

fn bind_event(statement: &mut CachedStatement<'_>, event: &StoredEvent) -> rusqlite::Result<()> {
    with_stored_id(event.originator_id, |id| statement.raw_bind_parameter(1, id))?;
    statement.raw_bind_parameter(2, event.originator_version)?;
    statement.raw_bind_parameter(3, event.topic.as_str())?;
    statement.raw_bind_parameter(4, &*event.state)
}

/// Why an event was not inserted.
pub(crate) fn refusal(event: &StoredEvent, error: rusqlite::Error) -> PersistenceError {
    if is_taken_key(&error) {
        let StoredEvent { originator_id, originator_version, .. } = *event;
        return Conflict::Version { originator_id, originator_version }.into();
    }
    let is_about_the_event = is_too_big(&error);
    let refusal = from_sqlite(error);
    if is_about_the_event { refusal.with_event(&event.context()) } else { refusal }
}

fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute(()).map(drop)
}

//! The statements of one request, within a transaction that the caller commits.

use std::{error::Error as _, iter::successors};

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use rusqlite::{CachedStatement, Connection};

use super::request::{Batch, Outcome};
use crate::{
    error::{from_sqlite, is_duplicate_key, is_too_big},
    schema::{EventTable, tables, tables::tracking, with_stored_id},
};

/// Appends a batch, all or nothing, and returns the notification ids, which are greater than `max_committed`.
pub(super) fn append(connection: &Connection, batch: Batch<'_>, max_committed: i64) -> Outcome {
    // A statement is all or nothing by itself, unless a trigger skips its row: the trigger's own writes
    // remain, and without a savepoint the whole transaction has to be rolled back.
    if batch.events.len() + usize::from(batch.tracking.is_some()) == 1 {
        let result = append_without_savepoint(connection, batch, max_committed);
        if result.as_ref().is_err_and(is_skipped) {
            execute(connection, "ROLLBACK").map_err(from_sqlite)?;
        }
        return result;
    }
    execute(connection, "SAVEPOINT request").map_err(from_sqlite)?;
    let result = append_without_savepoint(connection, batch, max_committed);
    // Some errors, such as a full disk, may make SQLite roll back the whole transaction with the savepoint.
    if connection.is_autocommit() {
        return result;
    }
    if let Err(error) = end_savepoint(connection, result.is_ok()) {
        // The rest of the request must not be committed with the others.
        execute(connection, "ROLLBACK").map_err(from_sqlite)?;
        return Err(from_sqlite(error));
    }
    result
}

/// Appends as [`append`] does. If it fails, the transaction may contain a part of the request and must be
/// rolled back, to a savepoint or as a whole.
pub(super) fn append_without_savepoint(
    connection: &Connection,
    Batch { table, events, tracking }: Batch<'_>,
    max_committed: i64,
) -> Outcome {
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
    let recorded = table.max_notification_id(connection).map_err(from_sqlite)?.unwrap_or(0);
    if recorded < max_committed {
        tracing::warn!(
            table = table.name,
            recorded,
            max_committed,
            "another program has deleted the latest notifications; their ids are not used again"
        );
    }
    let ids = ids_after(recorded.max(max_committed), table, events.len())?;
    // For NULL, SQLite chooses the same id, and inserting costs less.
    let is_chosen_by_sqlite = recorded >= max_committed && ids.last().is_some_and(|last| *last < i64::MAX);
    insert_events(connection, table, events, |insert, index| {
        insert.raw_bind_parameter(5, if is_chosen_by_sqlite { None } else { ids.get(index) })
    })?;
    Ok(ids)
}

/// Returns true if the table has exactly the events of the batch, with these notification ids.
pub(super) fn are_recorded(
    connection: &Connection,
    Batch { table, events, .. }: Batch<'_>,
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

/// Returns the notification ids of the next `count` events.
///
/// SQLite would choose the same ids, but random ones after the highest possible id, which would break the
/// order.
pub(crate) fn ids_after(highest: i64, table: &EventTable, count: usize) -> Outcome {
    let last = i64::try_from(count).ok().and_then(|count| highest.checked_add(count));
    match last {
        Some(last) => Ok((highest + 1..=last).collect()),
        None => Err(PersistenceError::operational(format!(
            "table {:?} has fewer than {count} notification ids left after {highest}",
            table.name
        ))),
    }
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
    let recorded = tables::max_tracking_id(connection, application_name).map_err(from_sqlite)?;
    Err(tracking_conflict(tracking, recorded, inserted))
}

/// Returns the error for a tracking record that was not inserted, given the recorded position.
pub(crate) fn tracking_conflict(
    tracking: &Tracking,
    recorded: Option<i64>,
    inserted: usize,
) -> PersistenceError {
    if let Err(conflict) = tracking.validate(recorded) {
        return conflict;
    }
    let name = tracking.application_name();
    skipped("tracking", inserted).with_context(format_args!("the position of application {name:?}"))
}

/// Returns the error for a statement that succeeded without inserting one row.
fn skipped(table: &str, inserted: usize) -> PersistenceError {
    let message = format!(
        "table {table:?} took {inserted} rows instead of 1: its triggers must not skip rows (RAISE(IGNORE))"
    );
    let source = rusqlite::Error::StatementChangedRows(inserted);
    PersistenceError::new(ErrorKind::Integrity, message).with_source(source)
}

fn is_skipped(error: &PersistenceError) -> bool {
    successors(error.source(), |source| (*source).source())
        .any(|source| matches!(source.downcast_ref(), Some(rusqlite::Error::StatementChangedRows(_))))
}

/// Verifies that inserting an event inserted one row.
pub(crate) fn verify_inserted(
    table: &EventTable,
    event: &StoredEvent,
    inserted: usize,
) -> Result<(), PersistenceError> {
    if inserted == 1 { Ok(()) } else { Err(skipped(&table.name, inserted).with_event(&event.context())) }
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
            .map_err(|error| insert_error(event, error))?;
        verify_inserted(table, event, inserted)?;
    }
    Ok(())
}

fn bind_event(statement: &mut CachedStatement<'_>, event: &StoredEvent) -> rusqlite::Result<()> {
    with_stored_id(event.originator_id, |id| statement.raw_bind_parameter(1, id))?;
    statement.raw_bind_parameter(2, event.originator_version)?;
    statement.raw_bind_parameter(3, event.topic.as_str())?;
    statement.raw_bind_parameter(4, &*event.state)
}

/// Converts the error of inserting an event.
pub(crate) fn insert_error(event: &StoredEvent, error: rusqlite::Error) -> PersistenceError {
    if is_duplicate_key(&error) {
        return event.conflict().into();
    }
    let concerns_event = is_too_big(&error);
    let error = from_sqlite(error);
    if concerns_event { error.with_event(&event.context()) } else { error }
}

/// Executes a statement without parameters.
pub(super) fn execute(connection: &Connection, statement: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute(()).map(drop)
}

//! Appends inside the caller's own `sqlx` transaction, which the caller commits.

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use rusqlite::ffi;
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction, sqlite::SqliteQueryResult};

use crate::{
    error::from_sqlite,
    recorder::{
        SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteProcessRecorder, SqliteTrackingRecorder,
        Store,
    },
    schema::{EventTable, tables::tracking as tracking_table, with_stored_id},
    write::{
        Batch, Outcome,
        append::{ids_after, insert_error, tracking_conflict, verify_inserted},
    },
};

macro_rules! record_events {
    ($($recorder:ident)*) => {$(
        impl $recorder {
            /// Appends events, all or none, inside the caller's own transaction: they are recorded when it
            /// commits, together with its other writes.
            ///
            /// Begin the transaction with `BEGIN IMMEDIATE` (`begin_with`): other writers wait for its end up
            /// to the lock timeout. Do not publish the ids before it has committed. Its connection must be to
            /// the file of the recorder: this call detects that the file was moved, deleted or replaced, and
            /// the commit does not.
            ///
            /// # Errors
            /// As [`insert_events`](es_core::AggregateRecorder::insert_events). After a conflict, and after
            /// a [`Data`](es_core::ErrorKind::Data) error or a version that the events have twice, the
            /// transaction is as it was before the call, and can be used further. After any other error,
            /// drop it and close its connection: on a full disk, for example, SQLite has rolled it back,
            /// `sqlx` does not know, and the next write would be committed immediately.
            ///
            /// # Cancel safety
            /// Cancel safe: the events are rolled back.
            pub async fn insert_events_in(
                &self,
                transaction: &mut Transaction<'_, Sqlite>,
                events: &[StoredEvent],
            ) -> Result<Vec<i64>, PersistenceError> {
                append_in(transaction, &self.0, events, None).await
            }
        }
    )*};
}

record_events!(SqliteAggregateRecorder SqliteApplicationRecorder SqliteProcessRecorder);

macro_rules! record_tracking {
    ($($recorder:ident)*) => {$(
        impl $recorder {
            /// Records a position inside the caller's own transaction, when that commits. A view that the
            /// same transaction updates is then updated exactly once.
            ///
            /// # Errors
            /// As [`insert_tracking`](es_core::TrackingRecorder::insert_tracking). After a conflict the
            /// transaction is as it was before the call; after any other error, drop it and close its
            /// connection.
            ///
            /// # Cancel safety
            /// Cancel safe: the position is rolled back.
            pub async fn insert_tracking_in(
                &self,
                transaction: &mut Transaction<'_, Sqlite>,
                tracking: &Tracking,
            ) -> Result<(), PersistenceError> {
                append_in(transaction, &self.0, &[], Some(tracking)).await.map(drop)
            }
        }
    )*};
}

record_tracking!(SqliteProcessRecorder SqliteTrackingRecorder);

impl SqliteProcessRecorder {
    /// Appends events and a position, all or nothing, inside the caller's own transaction: see
    /// [`insert_events_in`](Self::insert_events_in).
    ///
    /// # Errors
    /// As [`insert_events_with_tracking`](es_core::ProcessRecorder::insert_events_with_tracking); for the
    /// transaction see [`insert_events_in`](Self::insert_events_in).
    ///
    /// # Cancel safety
    /// Cancel safe: everything is rolled back.
    pub async fn insert_events_with_tracking_in(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        events: &[StoredEvent],
        tracking: &Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        append_in(transaction, &self.0, events, Some(tracking)).await
    }
}

async fn append_in(
    transaction: &mut Transaction<'_, Sqlite>,
    Store { datastore, table, lifecycle, .. }: &Store,
    events: &[StoredEvent],
    tracking: Option<&Tracking>,
) -> Outcome {
    lifecycle.check_open()?;
    StoredEvent::verify_unique_versions(events)?;
    datastore.verify_unchanged()?;
    verify_open(transaction).await?;
    // A transaction within a transaction is a savepoint, which is rolled back when dropped.
    let mut savepoint = Connection::begin(&mut **transaction).await.map_err(from_sqlx)?;
    match append(&mut savepoint, Batch { table, events, tracking }).await {
        Ok(ids) => savepoint.commit().await.map(|()| ids).map_err(from_sqlx),
        Err(error) => {
            if let Err(lost) = savepoint.rollback().await {
                tracing::warn!(error = %lost, "SQLite has rolled back the caller's transaction");
            }
            Err(error)
        }
    }
}

/// Refuses a transaction that SQLite has rolled back: a savepoint would then be a transaction of its own,
/// committed when it is released.
///
/// SQL has only this test: within a transaction, no other can begin.
async fn verify_open(connection: &mut SqliteConnection) -> Result<(), PersistenceError> {
    if sqlx::query("BEGIN").execute(&mut *connection).await.is_err() {
        return Ok(());
    }
    sqlx::query("ROLLBACK").execute(connection).await.map_err(from_sqlx)?;
    let message = "SQLite has rolled back the transaction after an earlier error";
    Err(PersistenceError::new(ErrorKind::Interface, message))
}

async fn append(connection: &mut SqliteConnection, Batch { table, events, tracking }: Batch<'_>) -> Outcome {
    if let Some(tracking) = tracking {
        insert_tracking(connection, tracking).await?;
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    if table.is_numbered {
        let select = sqlx::query_scalar(AssertSqlSafe(table.select_max_id.as_str()));
        let highest: Option<i64> = select.fetch_one(&mut *connection).await.map_err(from_sqlx)?;
        ids = ids_after(highest.unwrap_or(0), table, events.len())?;
    }
    for (index, event) in events.iter().enumerate() {
        insert_event(connection, table, event, ids.get(index)).await?;
    }
    Ok(ids)
}

async fn insert_tracking(
    connection: &mut SqliteConnection,
    tracking: &Tracking,
) -> Result<(), PersistenceError> {
    let insert = sqlx::query(tracking_table::INSERT)
        .bind(tracking.application_name())
        .bind(tracking.notification_id())
        .bind(tracking.first_notification_id())
        .bind(tracking.expected_position());
    let inserted = rows(insert.execute(&mut *connection).await.map_err(from_sqlx)?);
    if inserted == 1 {
        return Ok(());
    }
    let select = sqlx::query_scalar(tracking_table::SELECT_MAX).bind(tracking.application_name());
    let recorded: Option<i64> = select.fetch_one(connection).await.map_err(from_sqlx)?;
    Err(tracking_conflict(tracking, recorded, inserted))
}

async fn insert_event(
    connection: &mut SqliteConnection,
    table: &EventTable,
    event: &StoredEvent,
    id: Option<&i64>,
) -> Result<(), PersistenceError> {
    let originator_id = with_stored_id(event.originator_id, str::to_owned);
    let mut insert = sqlx::query(AssertSqlSafe(table.insert.as_str()))
        .bind(originator_id)
        .bind(event.originator_version)
        .bind(event.topic.as_str())
        .bind(&*event.state);
    if let Some(id) = id {
        insert = insert.bind(*id);
    }
    match insert.execute(connection).await {
        Ok(done) => verify_inserted(table, event, rows(done)),
        Err(error) => Err(match to_sqlite(&error) {
            Some(cause) => insert_error(event, cause),
            None => from_sqlx(error),
        }),
    }
}

fn rows(done: SqliteQueryResult) -> usize {
    usize::try_from(done.rows_affected()).unwrap_or(usize::MAX)
}

/// Returns SQLite's error, if that is the cause.
fn to_sqlite(error: &sqlx::Error) -> Option<rusqlite::Error> {
    let cause = error.as_database_error()?;
    let code = cause.code()?.parse().ok()?;
    Some(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(cause.message().to_owned())))
}

fn from_sqlx(error: sqlx::Error) -> PersistenceError {
    match to_sqlite(&error) {
        Some(cause) => from_sqlite(cause),
        None => PersistenceError::operational("the connection of the transaction failed").with_source(error),
    }
}

//! Recording inside a transaction of the program's own, which `sqlx` runs and the program commits.

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use rusqlite::ffi;
use sqlx::{AssertSqlSafe, Connection, Sqlite, SqliteConnection, Transaction, sqlite::SqliteQueryResult};

use crate::{
    SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteDatastore, SqliteProcessRecorder,
    SqliteTrackingRecorder,
    error::from_sqlite,
    schema::tables::{EventTable, tracking as tracking_table},
    write::append::{ids_after, not_inserted, refusal, require_inserted, with_stored_id},
};

macro_rules! record_events {
    ($($recorder:ident)*) => {$(
        impl $recorder {
            /// Records events, all or none, inside a transaction of the program's own: they are
            /// recorded when it commits, together with whatever else it has written.
            ///
            /// Begin such a transaction with `BEGIN IMMEDIATE` (`begin_with`): it is one writer among
            /// others, which wait for its end up to the lock timeout. Give ids to nobody before it
            /// has committed. Its connection must be to the file of the recorder: that this was moved,
            /// deleted or replaced since is noticed here, and not by the commit.
            ///
            /// # Errors
            /// As [`insert_events`](es_core::AggregateRecorder::insert_events). After a conflict, and
            /// after a [`Data`](es_core::ErrorKind::Data) error, the transaction is as it was before
            /// the call, and may go on. After any other, drop it, and close its connection: on a full
            /// disk, for one, SQLite has rolled it back whole, `sqlx` does not know, and what is
            /// written next is committed at once.
            ///
            /// # Cancel safety
            /// When the future is dropped, what it has written is rolled back.
            pub async fn insert_events_in(
                &self,
                transaction: &mut Transaction<'_, Sqlite>,
                events: &[StoredEvent],
            ) -> Result<Vec<i64>, PersistenceError> {
                append_in(transaction, &self.datastore, &self.table, events, None).await
            }
        }
    )*};
}

record_events!(SqliteAggregateRecorder SqliteApplicationRecorder SqliteProcessRecorder);

macro_rules! record_tracking {
    ($($recorder:ident)*) => {$(
        impl $recorder {
            /// Records a position inside a transaction of the program's own: it is recorded when that
            /// commits. A view that the same transaction updates is then updated exactly once.
            ///
            /// # Errors
            /// As [`insert_tracking`](es_core::TrackingRecorder::insert_tracking). After a conflict the
            /// transaction is as it was before the call; after any other error, drop it, and close its
            /// connection.
            ///
            /// # Cancel safety
            /// When the future is dropped, what it has written is rolled back.
            pub async fn insert_tracking_in(
                &self,
                transaction: &mut Transaction<'_, Sqlite>,
                tracking: &Tracking,
            ) -> Result<(), PersistenceError> {
                append_in(transaction, &self.datastore, &self.table, &[], Some(tracking)).await.map(drop)
            }
        }
    )*};
}

record_tracking!(SqliteProcessRecorder SqliteTrackingRecorder);

impl SqliteProcessRecorder {
    /// Records events and a position, all or nothing, inside a transaction of the program's own: see
    /// [`insert_events_in`](Self::insert_events_in).
    ///
    /// # Errors
    /// As [`insert_events_with_tracking`](es_core::ProcessRecorder::insert_events_with_tracking); what
    /// becomes of the transaction is told at [`insert_events_in`](Self::insert_events_in).
    ///
    /// # Cancel safety
    /// When the future is dropped, what it has written is rolled back.
    pub async fn insert_events_with_tracking_in(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        events: &[StoredEvent],
        tracking: &Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        append_in(transaction, &self.datastore, &self.table, events, Some(tracking)).await
    }
}

async fn append_in(
    transaction: &mut Transaction<'_, Sqlite>,
    datastore: &SqliteDatastore,
    table: &EventTable,
    events: &[StoredEvent],
    tracking: Option<&Tracking>,
) -> Result<Vec<i64>, PersistenceError> {
    datastore.require_unmoved()?;
    require_open(transaction).await?;
    // A transaction within a transaction is a savepoint; dropped, it is rolled back.
    let mut savepoint = Connection::begin(&mut **transaction).await.map_err(from_sqlx)?;
    match append(&mut savepoint, table, events, tracking).await {
        Ok(ids) => savepoint.commit().await.map(|()| ids).map_err(from_sqlx),
        Err(error) => {
            if let Err(lost) = savepoint.rollback().await {
                tracing::warn!(error = %lost, "SQLite has rolled the program's transaction back");
            }
            Err(error)
        }
    }
}

/// Refuses a transaction that SQLite has rolled back by itself: a savepoint would then be one of its
/// own, committed with its end.
///
/// SQL has no way to ask but this: within a transaction, none can begin.
async fn require_open(connection: &mut SqliteConnection) -> Result<(), PersistenceError> {
    if sqlx::query("BEGIN").execute(&mut *connection).await.is_err() {
        return Ok(());
    }
    sqlx::query("ROLLBACK").execute(connection).await.map_err(from_sqlx)?;
    let message = "SQLite has rolled the transaction back after an earlier error";
    Err(PersistenceError::new(ErrorKind::Interface, message))
}

async fn append(
    connection: &mut SqliteConnection,
    table: &EventTable,
    events: &[StoredEvent],
    tracking: Option<&Tracking>,
) -> Result<Vec<i64>, PersistenceError> {
    if let Some(tracking) = tracking {
        insert_tracking(connection, tracking).await?;
    }
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let ids = if table.is_numbered { next_ids(connection, table, events.len()).await? } else { Vec::new() };
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
    Err(not_inserted(tracking, recorded, inserted))
}

async fn next_ids(
    connection: &mut SqliteConnection,
    table: &EventTable,
    count: usize,
) -> Result<Vec<i64>, PersistenceError> {
    let select = sqlx::query_scalar(AssertSqlSafe(table.select_max_id.as_str()));
    let highest: Option<i64> = select.fetch_one(connection).await.map_err(from_sqlx)?;
    ids_after(highest.unwrap_or(0), table, count)
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
        Ok(done) => require_inserted(table, event, rows(done)),
        Err(error) => Err(match to_sqlite(&error) {
            Some(cause) => refusal(event, cause),
            None => from_sqlx(error),
        }),
    }
}

fn rows(done: SqliteQueryResult) -> usize {
    usize::try_from(done.rows_affected()).unwrap_or(usize::MAX)
}

/// What SQLite said, if it was SQLite that failed.
fn to_sqlite(error: &sqlx::Error) -> Option<rusqlite::Error> {
    let cause = error.as_database_error()?;
    let code = cause.code()?.parse().ok()?;
    Some(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(cause.message().to_owned())))
}

fn from_sqlx(error: sqlx::Error) -> PersistenceError {
    match to_sqlite(&error) {
        Some(cause) => from_sqlite(cause),
        None => PersistenceError::operational("the transaction's connection failed").with_source(error),
    }
}

//! Appending on a connection: the rows of several batches in one statement, and an outcome for each batch.

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use sqlx::{
    Arguments, AssertSqlSafe, Row, SqlSafeStr, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgConnection, PgRow},
};

use super::{
    columns::Columns,
    outcome::{GroupAnswer, Outcome},
    request::Batch,
    statement::{self, Ids, ROWS_SKIPPED},
};
use crate::{
    connection::session::{self, Access},
    error::{self, DriverError, ErrorClass, UNIQUE_VIOLATION},
    options::{NotificationOrdering, PostgresOptions},
    schema::{CatalogState, Layout},
};

/// The failure of an append as a whole. Nothing was written, unless the connection was lost.
#[derive(Debug)]
pub(crate) struct AppendError {
    pub(crate) class: ErrorClass,
    pub(crate) read_only: bool,
    pub(crate) is_unique_violation: bool,
    /// The tracking table has another layout than when the appender was made.
    pub(crate) is_layout_changed: bool,
    /// The connection can be used again: no transaction is open, and no lock is held.
    pub(crate) is_connection_usable: bool,
    pub(crate) error: PersistenceError,
}

impl AppendError {
    /// A failure before anything was sent.
    pub(crate) fn unavailable(error: PersistenceError) -> Self {
        Self::new(ErrorClass::Unavailable, error)
    }

    /// An answer that does not fit the request.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(ErrorClass::Refused, PersistenceError::internal(message))
    }

    /// A failure in an open transaction.
    fn in_transaction(mut self) -> Self {
        self.is_connection_usable = false;
        self
    }

    fn new(class: ErrorClass, error: PersistenceError) -> Self {
        Self {
            class,
            read_only: false,
            is_unique_violation: false,
            is_layout_changed: false,
            is_connection_usable: false,
            error,
        }
    }
}

/// The transaction in which an append runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One of its own.
    Own,
    /// One of its own, of several statements, for one batch with the first position of its application.
    FirstPosition,
    /// The caller's.
    Callers,
}

/// SQLSTATEs of a statement that was made for another layout of the tracking table: no matching unique key
/// for `ON CONFLICT`, and a unique violation.
pub(crate) const LAYOUT_CHANGED: [&str; 2] = ["42P10", UNIQUE_VIOLATION];

/// Appends to the tables of one recorder.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(crate) tables: CatalogState,
    single: Option<SqlStr>,
    single_with_tracking: Option<SqlStr>,
    /// For groups without and with positions.
    groups: [SqlStr; 2],
    /// For transactions of several statements in the parallel ordering.
    given_ids: Option<GivenIds>,
    insert_first_position: Option<SqlStr>,
    is_serialized: bool,
    begin: String,
    is_pooled: bool,
    /// The operation, for error messages.
    operation: String,
}

/// Statements that allocate ids, and that take them as a parameter.
#[derive(Debug)]
struct GivenIds {
    allocate: SqlStr,
    groups: [SqlStr; 2],
}

impl Appender {
    pub(crate) fn new(tables: CatalogState, options: &PostgresOptions) -> Self {
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        let groups =
            |ids| [false, true].map(|with_tracking| sql(statement::group(&tables, with_tracking, ids)));
        let (events, tracking) = (tables.events.as_ref(), tables.tracking.as_ref());
        let sequence = events.filter(|events| events.has_ids).and_then(|events| events.sequence.as_deref());
        let sequence = sequence.filter(|_| options.ordering == NotificationOrdering::Parallel);
        let ids = if sequence.is_some() { Ids::Allocated } else { Ids::Default };
        let events_with_ids = events.filter(|events| events.has_ids && ids == Ids::Default);
        let row_per_application = tracking.filter(|tracking| tracking.layout == Layout::RowPerApplication);
        let name = events.map(|events| &events.name).or(tracking.map(|tracking| &tracking.name));
        Self {
            single: events.map(|events| sql(statement::single(events, ids))),
            single_with_tracking: events_with_ids
                .zip(row_per_application)
                .map(|(events, tracking)| sql(statement::single_with_tracking(events, tracking))),
            groups: groups(ids),
            given_ids: sequence.map(|sequence| GivenIds {
                allocate: sql(statement::allocate_ids(sequence)),
                groups: groups(Ids::Given),
            }),
            insert_first_position: tracking.map(|tracking| sql(statement::insert_first_position(tracking))),
            is_serialized: options.ordering != NotificationOrdering::Parallel,
            begin: session::begin(options, Access::ReadWrite),
            is_pooled: options.transaction_pooler,
            operation: name
                .map_or_else(|| "appending".to_owned(), |name| format!("appending to {}", name.quoted())),
            tables,
        }
    }

    /// Records the batches, which must not conflict with each other, in one transaction: each batch whole or
    /// not at all.
    pub(crate) async fn append(
        &self,
        connection: &mut PgConnection,
        batches: &[Batch<'_>],
        scope: Scope,
    ) -> Result<Vec<Outcome>, AppendError> {
        if let ([Batch { events: [event], tracking }], Scope::Own, false) = (batches, scope, self.is_pooled)
            && let Some(outcome) = self.append_single(connection, event, *tracking).await?
        {
            return Ok(vec![outcome]);
        }
        if let ([batch], Scope::FirstPosition) = (batches, scope) {
            return self.append_first_position(connection, *batch).await.map(|outcome| vec![outcome]);
        }
        let columns = Columns::new(batches);
        let needs_locks_first = columns.has_tracking() && self.has_row_per_record();
        if scope == Scope::Own && !self.is_pooled && !needs_locks_first {
            // One statement, committed by itself.
            return self.append_rows(connection, &columns, scope, None).await;
        }
        if scope == Scope::Own {
            self.run(connection, &self.begin).await?;
        }
        let outcomes = self.append_in_transaction(connection, &columns, scope).await?;
        if scope == Scope::Own {
            self.run(connection, "COMMIT").await?;
        }
        Ok(outcomes)
    }

    /// Records a batch with the first position of its application, in a transaction of several statements.
    ///
    /// The position is inserted first, while no lock is held: a rival's insertion of the same position is
    /// waited for. The order of the locks is that of the Python library's version 9.5.
    async fn append_first_position(
        &self,
        connection: &mut PgConnection,
        batch: Batch<'_>,
    ) -> Result<Outcome, AppendError> {
        let (Some(tracking), Some(sql)) = (batch.tracking, &self.insert_first_position) else {
            return Err(AppendError::internal("a batch without a position has a first position"));
        };
        self.run(connection, &self.begin).await?;
        let insert = sqlx::query(sql.clone()).persistent(!self.is_pooled);
        let insert = insert.bind(tracking.application_name()).bind(tracking.notification_id());
        let inserted =
            insert.execute(&mut *connection).await.map_err(|failed| self.failed(failed).in_transaction())?;
        let outcome = if inserted.rows_affected() == 0 {
            // A rival was faster, or a trigger skips the row.
            Outcome::NotInserted
        } else if batch.events.is_empty() {
            Outcome::Recorded(Vec::new())
        } else {
            let events = [Batch { tracking: None, ..batch }];
            let outcomes = self.append_in_transaction(connection, &Columns::new(&events), Scope::Own).await;
            let outcomes = outcomes.map_err(AppendError::in_transaction)?;
            outcomes.into_iter().next().unwrap_or(Outcome::NotInserted)
        };
        let end = if matches!(outcome, Outcome::Recorded(_)) { "COMMIT" } else { "ROLLBACK" };
        self.run(connection, end).await.map_err(AppendError::in_transaction)?;
        Ok(outcome)
    }

    /// Returns whether an append holds an advisory lock for its whole transaction, so that a second
    /// connection of the same recorder would only wait for the first.
    pub(crate) fn excludes_others(&self) -> bool {
        self.given_ids.is_none() && self.tables.events.as_ref().is_none_or(|events| events.has_ids)
    }

    /// Runs the statement for a group, and reads the outcome of each batch.
    async fn append_rows(
        &self,
        connection: &mut PgConnection,
        columns: &Columns<'_>,
        scope: Scope,
        ids: Option<&[i64]>,
    ) -> Result<Vec<Outcome>, AppendError> {
        let groups = match &self.given_ids {
            Some(given_ids) if ids.is_some() => &given_ids.groups,
            _ => &self.groups,
        };
        let arguments = columns.arguments(&self.tables, scope == Scope::Callers, ids);
        let row = self.fetch_row(connection, &groups[usize::from(columns.has_tracking())], arguments).await?;
        let answer = GroupAnswer::read(&row).map_err(|failed| self.failed(failed))?;
        let outcomes = answer.outcomes(columns.batches, self.has_ids());
        outcomes.ok_or_else(|| AppendError::internal("the answer to an append does not match its request"))
    }

    /// Appends a single event. Returns none if nothing was recorded: its version is taken, its position is
    /// not the next one, is locked or is the first, or a trigger skipped a row.
    async fn append_single(
        &self,
        connection: &mut PgConnection,
        event: &StoredEvent,
        tracking: Option<&Tracking>,
    ) -> Result<Option<Outcome>, AppendError> {
        let sql = if tracking.is_some() { &self.single_with_tracking } else { &self.single };
        let Some(sql) = sql else { return Ok(None) };
        let row = match self.fetch(connection, sql, single_arguments(event, tracking)).await {
            // The statement was rolled back.
            Err(failed) if tracking.is_some() && failed.error.kind() == ErrorKind::Integrity => None,
            fetched => fetched?,
        };
        let Some(row) = row else { return Ok(None) };
        let id: i64 = row.try_get(0).map_err(|failed| self.failed(failed))?;
        Ok(Some(Outcome::Recorded(if self.has_ids() { vec![id] } else { Vec::new() })))
    }

    /// Appends in an open transaction by several statements: the locks, the ids, the rows.
    async fn append_in_transaction(
        &self,
        connection: &mut PgConnection,
        columns: &Columns<'_>,
        scope: Scope,
    ) -> Result<Vec<Outcome>, AppendError> {
        let applications = &columns.positions.application_names;
        let is_callers = scope == Scope::Callers;
        let locks = statement::lock_statements(&self.tables, self.is_serialized, applications, is_callers);
        if !locks.is_empty() {
            self.run(connection, &locks).await?;
        }
        let Some(given_ids) = self.given_ids.as_ref().filter(|_| !columns.versions.is_empty()) else {
            return self.append_rows(connection, columns, scope, None).await;
        };
        self.run(connection, "SAVEPOINT es_postgres_ids").await?;
        let mut count = PgArguments::default();
        let added = count.add(i32::try_from(columns.versions.len()).unwrap_or(i32::MAX));
        let allocated = self.fetch_row(connection, &given_ids.allocate, added.map(|()| count)).await?;
        let ids: Vec<i64> = allocated.try_get(0).map_err(|failed| self.failed(failed))?;
        let release = "ROLLBACK TO SAVEPOINT es_postgres_ids; RELEASE SAVEPOINT es_postgres_ids";
        self.run(connection, release).await?;
        self.append_rows(connection, columns, scope, Some(&ids)).await
    }

    fn has_row_per_record(&self) -> bool {
        self.tables.tracking.as_ref().is_some_and(|tracking| tracking.layout == Layout::RowPerRecord)
    }

    async fn run(&self, connection: &mut PgConnection, statements: &str) -> Result<(), AppendError> {
        session::run(connection, statements).await.map_err(|failed| self.failed(failed))
    }

    /// Fetches the row of an answer, and the end of the answer too: the row may arrive before the commit is
    /// durable.
    async fn fetch(
        &self,
        connection: &mut PgConnection,
        sql: &SqlStr,
        arguments: Result<PgArguments, BoxDynError>,
    ) -> Result<Option<PgRow>, AppendError> {
        let arguments = arguments.map_err(|error| self.failed(sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(sql.clone(), arguments).persistent(!self.is_pooled);
        let rows = query.fetch_all(connection).await.map_err(|failed| self.failed(failed))?;
        Ok(rows.into_iter().next())
    }

    async fn fetch_row(
        &self,
        connection: &mut PgConnection,
        sql: &SqlStr,
        arguments: Result<PgArguments, BoxDynError>,
    ) -> Result<PgRow, AppendError> {
        let row = self.fetch(connection, sql, arguments).await?;
        row.ok_or_else(|| self.failed(sqlx::Error::RowNotFound))
    }

    fn has_ids(&self) -> bool {
        self.tables.events.as_ref().is_some_and(|events| events.has_ids)
    }

    /// The failure for an error of the driver.
    pub(crate) fn failed(&self, error: sqlx::Error) -> AppendError {
        let class = error::classify(&error);
        let is_of_tracking = error::table(&error).is_some_and(|table| {
            self.tables.tracking.as_ref().is_some_and(|tracking| tracking.name.name() == table)
        });
        // In a statement of its own, the server has rolled everything back. The exception is the session lock
        // under which ids are allocated: it is released before the first row is inserted, and kept if the
        // statement fails before.
        let allocates = self.given_ids.is_some();
        let has_allocated = error::has_sqlstate(&error, &[UNIQUE_VIOLATION, ROWS_SKIPPED]);
        AppendError {
            class,
            read_only: error::is_read_only(&error),
            is_unique_violation: error::has_sqlstate(&error, &[UNIQUE_VIOLATION]),
            is_layout_changed: error::has_sqlstate(&error, &LAYOUT_CHANGED[..1])
                || is_of_tracking && error::has_sqlstate(&error, &LAYOUT_CHANGED[1..]),
            is_connection_usable: class != ErrorClass::Lost
                && !self.is_pooled
                && !self.has_row_per_record()
                && (!allocates || has_allocated),
            error: self.describe(error),
        }
    }

    fn describe(&self, error: sqlx::Error) -> PersistenceError {
        if !error::has_sqlstate(&error, &[ROWS_SKIPPED]) {
            return error::from_statement(&self.operation, error);
        }
        let message = format!(
            "{}: not all rows were inserted, and nothing was recorded: a trigger or a rule of the table skips \
             rows",
            self.operation
        );
        PersistenceError::new(ErrorKind::Integrity, message).with_source(DriverError::new(error))
    }
}

fn single_arguments(event: &StoredEvent, tracking: Option<&Tracking>) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(event.originator_id)?;
    arguments.add(event.originator_version)?;
    arguments.add(event.topic.as_str())?;
    arguments.add(&*event.state)?;
    if let Some(tracking) = tracking {
        arguments.add(tracking.application_name())?;
        arguments.add(tracking.notification_id())?;
        arguments.add(tracking.first_notification_id())?;
        arguments.add(tracking.expected_position())?;
    }
    Ok(arguments)
}

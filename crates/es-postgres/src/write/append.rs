//! Appending on a connection: the rows of several batches in one statement, and an outcome for each batch.

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking};
use sqlx::{
    Arguments, AssertSqlSafe, Row, SqlSafeStr, SqlStr,
    error::BoxDynError,
    postgres::{PgArguments, PgConnection, PgRow},
};
use uuid::Uuid;

use super::{
    request::Batch,
    statement::{self, Ids, PositionStatus, ROWS_SKIPPED},
};
use crate::{
    connection::session::{self, Access},
    error::{self, DriverError, Verdict},
    options::{NotificationOrdering, PostgresOptions},
    schema::{CatalogState, Layout},
};

/// The outcome of a batch.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Recorded, with its notification ids.
    Recorded(Vec<i64>),
    /// It conflicts with stored data, or the recorded position is behind the expected one.
    Refused(PersistenceError),
    /// Nothing was written, because the recorded position is locked by another transaction.
    Locked,
    /// Nothing was written, because the batch has the first position of its application: to be sent again with
    /// [`Scope::FirstPosition`].
    FirstPosition,
    /// Nothing was written, because the position was not inserted although none was recorded: a rival recorded the
    /// first position of the application at the same time, or a trigger skips the row.
    NotInserted,
}

/// Why an append failed as a whole. Nothing was written, unless the connection was lost.
#[derive(Debug)]
pub(crate) struct AppendError {
    pub(crate) verdict: Verdict,
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
        Self::new(Verdict::Unavailable, error)
    }

    /// An answer that does not fit the request.
    pub(crate) fn internal(message: &str) -> Self {
        Self::new(Verdict::Refused, PersistenceError::internal(message))
    }

    /// A failure in an open transaction.
    fn in_transaction(mut self) -> Self {
        self.is_connection_usable = false;
        self
    }

    fn new(verdict: Verdict, error: PersistenceError) -> Self {
        Self {
            verdict,
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

/// SQLSTATEs of a statement that was made for another layout of the tracking table: no matching unique key for
/// `ON CONFLICT`, and a unique violation.
pub(crate) const LAYOUT_CHANGED: [&str; 2] = ["42P10", "23505"];

/// Appends to the tables of one recorder.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(crate) tables: CatalogState,
    single: Option<SqlStr>,
    group: SqlStr,
    group_with_tracking: Option<SqlStr>,
    /// The same with ids as a parameter, for transactions of several statements in the parallel ordering.
    with_given_ids: Option<GivenIds>,
    insert_first_position: Option<SqlStr>,
    is_serialized: bool,
    begin: String,
    is_pooled: bool,
    /// The operation, for error messages.
    operation: String,
}

#[derive(Debug)]
struct GivenIds {
    draw: SqlStr,
    group: SqlStr,
    group_with_tracking: Option<SqlStr>,
}

impl Appender {
    pub(crate) fn new(tables: CatalogState, options: &PostgresOptions) -> Self {
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        let group = |with_tracking, ids| sql(statement::group(&tables, with_tracking, ids));
        let sequence = tables.events.as_ref().filter(|events| events.has_ids);
        let sequence = sequence.and_then(|events| events.sequence.as_deref());
        let sequence = sequence.filter(|_| options.ordering == NotificationOrdering::Parallel);
        let ids = if sequence.is_some() { Ids::Drawn } else { Ids::Default };
        let has_tracking = tables.tracking.is_some();
        Self {
            single: tables.events.as_ref().map(|events| sql(statement::single(events, ids))),
            group: group(tables.events.is_none(), ids),
            group_with_tracking: has_tracking.then(|| group(true, ids)),
            with_given_ids: sequence.map(|sequence| GivenIds {
                draw: sql(statement::draw_ids(sequence)),
                group: group(false, Ids::Given),
                group_with_tracking: has_tracking.then(|| group(true, Ids::Given)),
            }),
            insert_first_position: tables
                .tracking
                .as_ref()
                .map(|tracking| sql(statement::insert_first_position(tracking))),
            is_serialized: options.ordering != NotificationOrdering::Parallel,
            begin: session::begin(options, Access::ReadWrite),
            is_pooled: options.transaction_pooler,
            operation: match (&tables.events, &tables.tracking) {
                (Some(events), _) => format!("appending to {}", events.name.quoted()),
                (None, Some(tracking)) => format!("appending to {}", tracking.name.quoted()),
                (None, None) => "appending".to_owned(),
            },
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
        if let ([Batch { events: [event], tracking: None }], Scope::Own, false) =
            (batches, scope, self.is_pooled)
            && let Some(outcome) = self.append_single(connection, event).await?
        {
            return Ok(vec![outcome]);
        }
        if let ([batch], Scope::FirstPosition) = (batches, scope) {
            return self.append_first_position(connection, *batch).await.map(|outcome| vec![outcome]);
        }
        let rows = Rows::new(batches);
        let needs_locks_first = rows.has_tracking() && self.has_row_per_record();
        if scope == Scope::Own && !self.is_pooled && !needs_locks_first {
            // One statement, committed by itself.
            return self.append_rows(connection, batches, &rows, scope).await;
        }
        if scope == Scope::Own {
            self.run(connection, &self.begin).await?;
        }
        let outcomes = self.append_in_transaction(connection, batches, &rows, scope).await?;
        if scope == Scope::Own {
            self.run(connection, "COMMIT").await?;
        }
        Ok(outcomes)
    }

    /// Records a batch with the first position of its application, in a transaction of several statements.
    ///
    /// The position is inserted first, while no lock is held: a rival's insertion of the same position is waited
    /// for. The order of the locks is that of the Python library's version 9.5.
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
            let rows = Rows::new(&events);
            let outcomes = self.append_in_transaction(connection, &events, &rows, Scope::Own).await;
            let outcomes = outcomes.map_err(AppendError::in_transaction)?;
            outcomes.into_iter().next().unwrap_or(Outcome::NotInserted)
        };
        let end = if matches!(outcome, Outcome::Recorded(_)) { "COMMIT" } else { "ROLLBACK" };
        self.run(connection, end).await.map_err(AppendError::in_transaction)?;
        Ok(outcome)
    }

    /// Whether an append holds an advisory lock for its whole transaction, so that a second connection of the
    /// same recorder would only wait for the first.
    pub(crate) fn excludes_others(&self) -> bool {
        self.with_given_ids.is_none() && self.tables.events.as_ref().is_none_or(|events| events.has_ids)
    }

    /// Runs the statement for a group.
    async fn append_rows(
        &self,
        connection: &mut PgConnection,
        batches: &[Batch<'_>],
        rows: &Rows<'_>,
        scope: Scope,
    ) -> Result<Vec<Outcome>, AppendError> {
        let sql = match &self.group_with_tracking {
            Some(sql) if rows.has_tracking() => sql,
            _ => &self.group,
        };
        let row = self.fetch_row(connection, sql, rows.arguments(&self.tables, scope, None)).await?;
        self.outcomes(&row, batches)
    }

    /// Appends a single event; none if it was not inserted, because its version is taken or a trigger skipped the
    /// row.
    async fn append_single(
        &self,
        connection: &mut PgConnection,
        event: &StoredEvent,
    ) -> Result<Option<Outcome>, AppendError> {
        let Some(sql) = &self.single else { return Ok(None) };
        let arguments = single_arguments(event).map_err(|error| self.failed(sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(sql.clone(), arguments).persistent(!self.is_pooled);
        // All of the answer is read: the row may arrive before the commit is durable.
        let rows = query.fetch_all(connection).await.map_err(|failed| self.failed(failed))?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id: i64 = row.try_get(0).map_err(|failed| self.failed(failed))?;
        let has_ids = self.tables.events.as_ref().is_some_and(|events| events.has_ids);
        Ok(Some(Outcome::Recorded(if has_ids { vec![id] } else { Vec::new() })))
    }

    /// Several statements in an open transaction: the locks, the ids, the rows.
    async fn append_in_transaction(
        &self,
        connection: &mut PgConnection,
        batches: &[Batch<'_>],
        rows: &Rows<'_>,
        scope: Scope,
    ) -> Result<Vec<Outcome>, AppendError> {
        let applications = &rows.positions.application_names;
        let is_callers = scope == Scope::Callers;
        let locks = statement::lock_statements(&self.tables, self.is_serialized, applications, is_callers);
        if !locks.is_empty() {
            self.run(connection, &locks).await?;
        }
        let Some(with_given_ids) = self.with_given_ids.as_ref().filter(|_| !rows.versions.is_empty()) else {
            return self.append_rows(connection, batches, rows, scope).await;
        };
        self.run(connection, "SAVEPOINT es_postgres_ids").await?;
        let mut count = PgArguments::default();
        let added = count.add(i32::try_from(rows.versions.len()).unwrap_or(i32::MAX));
        let drawn = self.fetch_row(connection, &with_given_ids.draw, added.map(|()| count)).await?;
        let ids: Vec<i64> = drawn.try_get(0).map_err(|failed| self.failed(failed))?;
        let release = "ROLLBACK TO SAVEPOINT es_postgres_ids; RELEASE SAVEPOINT es_postgres_ids";
        self.run(connection, release).await?;
        let sql = match (&with_given_ids.group_with_tracking, rows.has_tracking()) {
            (Some(sql), true) => sql,
            _ => &with_given_ids.group,
        };
        let row = self.fetch_row(connection, sql, rows.arguments(&self.tables, scope, Some(&ids))).await?;
        self.outcomes(&row, batches)
    }

    fn has_row_per_record(&self) -> bool {
        self.tables.tracking.as_ref().is_some_and(|tracking| tracking.layout == Layout::RowPerRecord)
    }

    async fn run(&self, connection: &mut PgConnection, statements: &str) -> Result<(), AppendError> {
        session::run(connection, statements).await.map_err(|failed| self.failed(failed))
    }

    /// Fetches the one row of an answer, and the end of the answer too: the row may arrive before the commit is
    /// durable.
    async fn fetch_row(
        &self,
        connection: &mut PgConnection,
        sql: &SqlStr,
        arguments: Result<PgArguments, BoxDynError>,
    ) -> Result<PgRow, AppendError> {
        let failed = |failed| self.failed(failed);
        let arguments = arguments.map_err(|error| failed(sqlx::Error::Encode(error)))?;
        let query = sqlx::query_with(sql.clone(), arguments).persistent(!self.is_pooled);
        let rows = query.fetch_all(connection).await.map_err(failed)?;
        rows.into_iter().next().ok_or(sqlx::Error::RowNotFound).map_err(failed)
    }

    fn outcomes(&self, row: &PgRow, batches: &[Batch<'_>]) -> Result<Vec<Outcome>, AppendError> {
        let answer = Answer::read(row).map_err(|failed| self.failed(failed))?;
        let has_ids = self.tables.events.as_ref().is_some_and(|events| events.has_ids);
        answer
            .outcomes(batches, has_ids)
            .ok_or_else(|| AppendError::internal("the answer to an append does not fit its request"))
    }

    /// The failure for an error of the driver.
    pub(crate) fn failed(&self, error: sqlx::Error) -> AppendError {
        let verdict = error::verdict(&error);
        let is_of_tracking = error::table(&error).is_some_and(|table| {
            self.tables.tracking.as_ref().is_some_and(|tracking| tracking.name.name() == table)
        });
        // In a statement of its own, the server has rolled everything back. The exception is the session lock
        // under which ids are drawn: it is released before the first row is inserted, and kept if the statement
        // fails before.
        let is_drawing = self.with_given_ids.is_some();
        let is_after_drawing = error::has_sqlstate(&error, &["23505", ROWS_SKIPPED]);
        AppendError {
            verdict,
            read_only: error::is_read_only(&error),
            is_unique_violation: error::has_sqlstate(&error, &["23505"]),
            is_layout_changed: error::has_sqlstate(&error, &LAYOUT_CHANGED[..1])
                || is_of_tracking && error::has_sqlstate(&error, &LAYOUT_CHANGED[1..]),
            is_connection_usable: verdict != Verdict::Lost
                && !self.is_pooled
                && !self.has_row_per_record()
                && (!is_drawing || is_after_drawing),
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

fn single_arguments(event: &StoredEvent) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.add(event.originator_id)?;
    arguments.add(event.originator_version)?;
    arguments.add(event.topic.as_str())?;
    arguments.add(&*event.state)?;
    Ok(arguments)
}

/// The rows of batches as columns, as the [statement for a group](statement::group) takes them.
#[derive(Default)]
struct Rows<'a> {
    requests: Vec<i32>,
    originator_ids: Vec<Uuid>,
    versions: Vec<i64>,
    topics: Vec<&'a str>,
    states: Vec<&'a [u8]>,
    runs: Runs,
    positions: Positions<'a>,
}

/// Runs of neighbouring rows of one aggregate with ascending versions, without a gap.
#[derive(Default)]
struct Runs {
    requests: Vec<i32>,
    originator_ids: Vec<Uuid>,
    lowest: Vec<i64>,
    highest: Vec<i64>,
}

#[derive(Default)]
struct Positions<'a> {
    requests: Vec<i32>,
    application_names: Vec<&'a str>,
    positions: Vec<i64>,
    firsts: Vec<i64>,
    expected: Vec<Option<i64>>,
}

impl<'a> Rows<'a> {
    fn new(batches: &[Batch<'a>]) -> Self {
        let mut rows = Self::default();
        rows.reserve(batches.iter().map(|batch| batch.events.len()).sum());
        for (request, batch) in (0..).zip(batches) {
            for event in batch.events {
                rows.requests.push(request);
                rows.originator_ids.push(event.originator_id);
                rows.versions.push(event.originator_version);
                rows.topics.push(&event.topic);
                rows.states.push(&event.state);
                rows.runs.add(request, event);
            }
            if let Some(tracking) = batch.tracking {
                rows.positions.add(request, tracking);
            }
        }
        rows
    }

    fn reserve(&mut self, rows: usize) {
        self.requests.reserve(rows);
        self.originator_ids.reserve(rows);
        self.versions.reserve(rows);
        self.topics.reserve(rows);
        self.states.reserve(rows);
    }

    fn has_tracking(&self) -> bool {
        !self.positions.requests.is_empty()
    }

    fn arguments(
        &self,
        tables: &CatalogState,
        scope: Scope,
        ids: Option<&[i64]>,
    ) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        if tables.events.is_some() {
            arguments.add(&self.requests)?;
            arguments.add(&self.originator_ids)?;
            arguments.add(&self.versions)?;
            arguments.add(&self.topics)?;
            arguments.add(&self.states)?;
            arguments.add(&self.runs.requests)?;
            arguments.add(&self.runs.originator_ids)?;
            arguments.add(&self.runs.lowest)?;
            arguments.add(&self.runs.highest)?;
        }
        if self.has_tracking() {
            arguments.add(&self.positions.requests)?;
            arguments.add(&self.positions.application_names)?;
            arguments.add(&self.positions.positions)?;
            arguments.add(&self.positions.firsts)?;
            arguments.add(&self.positions.expected)?;
            // In the caller's transaction, a refused append must leave the transaction usable.
            arguments.add(scope == Scope::Callers)?;
        }
        if let Some(ids) = ids {
            arguments.add(ids)?;
        }
        Ok(arguments)
    }
}

impl Runs {
    fn add(&mut self, request: i32, event: &StoredEvent) {
        let version = event.originator_version;
        if self.requests.last() == Some(&request)
            && self.originator_ids.last() == Some(&event.originator_id)
            && let Some(highest) = self.highest.last_mut()
            && highest.checked_add(1) == Some(version)
        {
            *highest = version;
            return;
        }
        self.requests.push(request);
        self.originator_ids.push(event.originator_id);
        self.lowest.push(version);
        self.highest.push(version);
    }
}

impl<'a> Positions<'a> {
    fn add(&mut self, request: i32, tracking: &'a Tracking) {
        self.requests.push(request);
        self.application_names.push(tracking.application_name());
        self.positions.push(tracking.notification_id());
        self.firsts.push(tracking.first_notification_id());
        self.expected.push(tracking.expected_position());
    }
}

/// The server's answer to a group.
struct Answer {
    clashes: Vec<(i32, Conflict)>,
    ids: Vec<i64>,
    statuses: Vec<(i32, PositionStatus, Option<i64>)>,
}

impl Answer {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let requests: Option<Vec<i32>> = row.try_get(0)?;
        let originator_ids: Option<Vec<Uuid>> = row.try_get(1)?;
        let versions: Option<Vec<i64>> = row.try_get(2)?;
        let ids: Option<Vec<i64>> = row.try_get(3)?;
        let keys = originator_ids.unwrap_or_default().into_iter().zip(versions.unwrap_or_default());
        let conflicts = keys.map(|(originator_id, originator_version)| Conflict::Version {
            originator_id,
            originator_version,
        });
        let positions: Option<Vec<i32>> = row.try_get(5)?;
        let codes: Option<Vec<i32>> = row.try_get(6)?;
        let recorded: Option<Vec<Option<i64>>> = row.try_get(7)?;
        let statuses = positions.unwrap_or_default().into_iter().zip(codes.unwrap_or_default());
        let statuses = statuses.zip(recorded.unwrap_or_default());
        Ok(Self {
            clashes: requests.unwrap_or_default().into_iter().zip(conflicts).collect(),
            ids: ids.unwrap_or_default(),
            statuses: statuses
                .map(|((request, code), recorded)| (request, PositionStatus::from_code(code), recorded))
                .collect(),
        })
    }

    /// The outcome of each batch; none if the answer does not fit.
    fn outcomes(self, batches: &[Batch<'_>], has_ids: bool) -> Option<Vec<Outcome>> {
        let mut refused: Vec<Option<Outcome>> = vec![None; batches.len()];
        // A lost position takes precedence over a taken version: a rival has processed the notification, and
        // there is nothing left to do.
        for (request, status, recorded) in &self.statuses {
            let request = usize::try_from(*request).ok()?;
            let tracking = batches.get(request)?.tracking?;
            *refused.get_mut(request)? = match status {
                PositionStatus::Late => Some(Outcome::Refused(late(tracking, *recorded))),
                PositionStatus::Locked => Some(Outcome::Locked),
                PositionStatus::First => None,
                PositionStatus::Recorded | PositionStatus::NotRecorded => None,
            };
        }
        for (request, conflict) in self.clashes {
            let refused = refused.get_mut(usize::try_from(request).ok()?)?;
            refused.get_or_insert(Outcome::Refused(conflict.into()));
        }
        for (request, status, _) in self.statuses {
            let outcome = match status {
                PositionStatus::NotRecorded => Outcome::NotInserted,
                PositionStatus::First => Outcome::FirstPosition,
                PositionStatus::Recorded | PositionStatus::Late | PositionStatus::Locked => continue,
            };
            refused.get_mut(usize::try_from(request).ok()?)?.get_or_insert(outcome);
        }
        let mut ids = self.ids.into_iter();
        let outcomes = batches.iter().zip(refused).map(|(batch, refused)| match refused {
            Some(refused) => Some(refused),
            None if !has_ids => Some(Outcome::Recorded(Vec::new())),
            None => {
                let own: Vec<i64> = ids.by_ref().take(batch.events.len()).collect();
                (own.len() == batch.events.len()).then_some(Outcome::Recorded(own))
            }
        });
        outcomes.collect()
    }
}

/// The error for a position that does not follow the recorded one.
fn late(tracking: &Tracking, recorded: Option<i64>) -> PersistenceError {
    tracking.validate(recorded).err().unwrap_or_else(|| tracking.conflict().into())
}

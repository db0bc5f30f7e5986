//! Appending on a connection: the rows of several requests in one call, an outcome for each.

use es_core::{Conflict, PersistenceError, StoredEvent, Tracking};
use sqlx::{
    Arguments, AssertSqlSafe, Row, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgConnection, PgRow},
};
use uuid::Uuid;

use crate::{
    error::{self, Verdict},
    options::PostgresOptions,
    schema::{self, Standing},
    statements::{AppendTables, Ids, Lock, PLANNING},
};

/// What one caller wants recorded as one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) events: &'a [StoredEvent],
    pub(crate) tracking: Option<&'a Tracking>,
}

/// What became of a batch: its notification ids, or what it collided with.
pub(crate) type Outcome = Result<Vec<i64>, Conflict>;

/// Why an append failed as a whole; nothing was written, unless the connection was lost.
#[derive(Debug)]
pub(crate) struct AppendError {
    pub(crate) verdict: Verdict,
    pub(crate) read_only: bool,
    /// What is appended to does not stand as it did when the appender was made.
    pub(crate) outdated: bool,
    pub(crate) error: PersistenceError,
}

impl AppendError {
    /// A failure before anything was sent.
    pub(crate) fn unavailable(error: PersistenceError) -> Self {
        Self { verdict: Verdict::Unavailable, read_only: false, outdated: false, error }
    }

    fn internal(error: PersistenceError) -> Self {
        Self { verdict: Verdict::Refused, read_only: false, outdated: false, error }
    }
}

/// Whose transaction an append runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    Own,
    Callers,
}

/// Appends to the tables of one recorder.
#[derive(Debug)]
pub(crate) struct Appender {
    pub(crate) tables: AppendTables,
    /// Whether the functions may be called.
    functions: bool,
    lock: Lock,
    /// How long to wait for the lock, in milliseconds.
    lock_wait: String,
    call: SqlStr,
    call_for_single: Option<SqlStr>,
    statement: SqlStr,
    statement_with_tracking: SqlStr,
    /// Begins a transaction of our own and takes the lock.
    begin: String,
    /// Takes the lock in the caller's transaction.
    take_lock: String,
    /// Takes the one of tracking in either, where that needs one.
    tracking_lock: Option<String>,
    /// What is being done, in an error's words.
    doing: String,
    pooler: bool,
}

impl Appender {
    pub(crate) fn new(standing: Standing, options: &PostgresOptions) -> Self {
        let Standing { append: tables, functions, lock } = standing;
        let lock_wait = options.lock_timeout.as_millis().to_string();
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        let take_lock = tables.lock(lock, "SELECT");
        let planning: String =
            PLANNING.iter().map(|(name, value)| format!("SET LOCAL {name} = {value};")).collect();
        let own = if functions {
            "BEGIN;".to_owned()
        } else {
            format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; {planning} SET LOCAL lock_timeout = {lock_wait}; {take_lock}"
            )
        };
        let begin = match options.idle_in_transaction_session_timeout.as_millis() {
            idle if idle > 0 && options.transaction_pooler => {
                format!("{own} SET LOCAL idle_in_transaction_session_timeout = {idle};")
            }
            _ => own,
        };
        let take_lock = format!(
            "SELECT pg_catalog.set_config('es_postgres.usual_wait', pg_catalog.current_setting('lock_timeout'), true); \
             SET LOCAL lock_timeout = {lock_wait}; {take_lock} \
             SELECT pg_catalog.set_config('lock_timeout', pg_catalog.current_setting('es_postgres.usual_wait'), true)"
        );
        Self {
            functions,
            lock,
            lock_wait,
            call: sql(tables.call_for_group()),
            call_for_single: tables.call_for_single().map(sql),
            statement: sql(tables.statement(false, Ids::Default)),
            statement_with_tracking: sql(tables.statement(true, Ids::Default)),
            begin,
            take_lock,
            tracking_lock: tables.tracking_lock("SELECT").filter(|_| !functions && lock == Lock::None),
            doing: format!("appending to {}", tables.anchor.quoted()),
            pooler: options.transaction_pooler,
            tables,
        }
    }

    /// Records the batches, all in one transaction, each whole or not at all.
    ///
    /// The batches must not be at odds with each other.
    pub(crate) async fn append(
        &self,
        connection: &mut PgConnection,
        batches: &[Batch<'_>],
        transaction: Transaction,
    ) -> Result<Vec<Outcome>, AppendError> {
        if let ([Batch { events: [event], tracking: None }], true, Some(call)) =
            (batches, self.functions, &self.call_for_single)
        {
            return self.append_single(connection, call, event, transaction).await;
        }
        let rows = Rows::new(batches);
        let arguments = self.arguments(&rows).map_err(|error| self.failed(sqlx::Error::Encode(error)))?;
        let sql = match (self.functions, rows.has_tracking()) {
            (true, _) => &self.call,
            (false, false) => &self.statement,
            (false, true) => &self.statement_with_tracking,
        };
        let row = self.run(connection, sql, arguments, transaction, rows.has_tracking()).await?;
        let answer = Answer::of(&row);
        let answer = answer.map_err(|error| self.failed(error))?;
        answer.outcomes(batches, &rows).map_err(AppendError::internal)
    }

    async fn append_single(
        &self,
        connection: &mut PgConnection,
        call: &SqlStr,
        event: &StoredEvent,
        transaction: Transaction,
    ) -> Result<Vec<Outcome>, AppendError> {
        let arguments = self.arguments_for_single(event);
        let arguments = arguments.map_err(|error| self.failed(sqlx::Error::Encode(error)))?;
        let row = self.run(connection, call, arguments, transaction, false).await?;
        let recorded: Option<i64> = row.try_get(0).map_err(|error| self.failed(error))?;
        let has_ids = self.tables.events.as_ref().is_some_and(|events| events.notifications);
        Ok(vec![match recorded {
            Some(id) if has_ids => Ok(vec![id]),
            Some(_) => Ok(Vec::new()),
            None => Err(Conflict::Version {
                originator_id: event.originator_id,
                originator_version: event.originator_version,
            }),
        }])
    }

    /// Whether the connection is as good as new: its statement failed, and no transaction is open.
    pub(crate) fn is_connection_usable_after(&self, failed: &AppendError) -> bool {
        self.functions && !self.pooler && failed.verdict != Verdict::Lost
    }

    /// Runs what appends; its answer is one row.
    async fn run(
        &self,
        connection: &mut PgConnection,
        sql: &SqlStr,
        arguments: PgArguments,
        transaction: Transaction,
        has_tracking: bool,
    ) -> Result<PgRow, AppendError> {
        let failed = |error| self.failed(error);
        // A function in a transaction of its own is one statement, committed by itself.
        if transaction == Transaction::Own && self.functions && !self.pooler {
            return fetch_row(connection, sql, arguments, true).await.map_err(failed);
        }
        match transaction {
            Transaction::Own => schema::run(connection, &self.begin).await.map_err(failed)?,
            Transaction::Callers if !self.functions && self.lock != Lock::None => {
                schema::run(connection, &self.take_lock).await.map_err(failed)?;
            }
            Transaction::Callers => {}
        }
        if let (Some(lock), true) = (&self.tracking_lock, has_tracking) {
            schema::run(connection, lock).await.map_err(failed)?;
        }
        let row = fetch_row(connection, sql, arguments, !self.pooler).await.map_err(failed)?;
        if !self.functions && row.try_get::<i64, _>(LOST).map_err(failed)? > 0 {
            // Events without their position must not be committed: the server ends the transaction, the
            // caller's too. That it says so with an error is what it is asked for.
            let _ = schema::run(connection, ABORT).await;
            return Err(self.overtaken());
        }
        if transaction == Transaction::Own {
            schema::run(connection, "COMMIT").await.map_err(failed)?;
        }
        Ok(row)
    }

    fn arguments_for_single(&self, event: &StoredEvent) -> Result<PgArguments, sqlx::error::BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(event.originator_id)?;
        arguments.add(event.originator_version)?;
        arguments.add(event.topic.as_str())?;
        arguments.add(&*event.state)?;
        arguments.add(self.lock.name())?;
        arguments.add(&self.lock_wait)?;
        Ok(arguments)
    }

    fn arguments(&self, rows: &Rows<'_>) -> Result<PgArguments, sqlx::error::BoxDynError> {
        let mut arguments = PgArguments::default();
        arguments.add(&rows.requests)?;
        arguments.add(&rows.originator_ids)?;
        arguments.add(&rows.originator_versions)?;
        arguments.add(&rows.topics)?;
        arguments.add(&rows.states)?;
        if self.functions || rows.has_tracking() {
            arguments.add(&rows.tracking_requests)?;
            arguments.add(&rows.application_names)?;
            arguments.add(&rows.positions)?;
            arguments.add(&rows.firsts)?;
        }
        if self.functions {
            arguments.add(&rows.runs.originator_ids)?;
            arguments.add(&rows.runs.lowest)?;
            arguments.add(&rows.runs.highest)?;
            arguments.add(self.lock.name())?;
            arguments.add(&self.lock_wait)?;
        }
        Ok(arguments)
    }

    pub(crate) fn failed(&self, error: sqlx::Error) -> AppendError {
        AppendError {
            verdict: error::verdict(&error),
            read_only: error::is_read_only(&error),
            outdated: error::has_sqlstate(&error, &OUTDATED),
            error: error::from_statement(&self.doing, error),
        }
    }

    /// Somebody recorded a later tracking position between the check and the insert.
    fn overtaken(&self) -> AppendError {
        let message = format!("{}: a tracking position was recorded at the same time", self.doing);
        AppendError {
            verdict: Verdict::Contended,
            read_only: false,
            outdated: false,
            error: PersistenceError::new(es_core::ErrorKind::Integrity, message),
        }
    }
}

/// The rows of batches as columns.
struct Rows<'a> {
    requests: Vec<i32>,
    originator_ids: Vec<Uuid>,
    originator_versions: Vec<i64>,
    topics: Vec<&'a str>,
    states: Vec<&'a [u8]>,
    tracking_requests: Vec<i32>,
    application_names: Vec<&'a str>,
    positions: Vec<i64>,
    firsts: Vec<i64>,
    runs: Runs,
}

/// Versions of one aggregate after the other, from the lowest to the highest of neighbouring rows.
#[derive(Default)]
struct Runs {
    originator_ids: Vec<Uuid>,
    lowest: Vec<i64>,
    highest: Vec<i64>,
}

impl Runs {
    fn add(&mut self, event: &StoredEvent) {
        let version = event.originator_version;
        if let (Some(originator_id), Some(lowest), Some(highest)) =
            (self.originator_ids.last(), self.lowest.last_mut(), self.highest.last_mut())
            && *originator_id == event.originator_id
        {
            *lowest = version.min(*lowest);
            *highest = version.max(*highest);
            return;
        }
        self.originator_ids.push(event.originator_id);
        self.lowest.push(version);
        self.highest.push(version);
    }
}

impl<'a> Rows<'a> {
    fn new(batches: &[Batch<'a>]) -> Self {
        let size = batches.iter().map(|batch| batch.events.len()).sum();
        let mut rows = Self {
            requests: Vec::with_capacity(size),
            originator_ids: Vec::with_capacity(size),
            originator_versions: Vec::with_capacity(size),
            topics: Vec::with_capacity(size),
            states: Vec::with_capacity(size),
            tracking_requests: Vec::new(),
            application_names: Vec::new(),
            positions: Vec::new(),
            firsts: Vec::new(),
            runs: Runs::default(),
        };
        for (request, batch) in (0..).zip(batches) {
            for event in batch.events {
                rows.requests.push(request);
                rows.originator_ids.push(event.originator_id);
                rows.originator_versions.push(event.originator_version);
                rows.topics.push(&event.topic);
                rows.states.push(&event.state);
                rows.runs.add(event);
            }
            if let Some(tracking) = batch.tracking {
                rows.tracking_requests.push(request);
                rows.application_names.push(tracking.application_name());
                rows.positions.push(tracking.notification_id());
                rows.firsts.push(tracking.first());
            }
        }
        rows
    }

    fn has_tracking(&self) -> bool {
        !self.tracking_requests.is_empty()
    }

    /// The request that a row belongs to, and what the row collided with; rows count from 1.
    fn version_conflict(&self, row: i64) -> Option<(usize, Conflict)> {
        let index = usize::try_from(row).ok()?.checked_sub(1)?;
        let conflict = Conflict::Version {
            originator_id: *self.originator_ids.get(index)?,
            originator_version: *self.originator_versions.get(index)?,
        };
        Some((usize::try_from(*self.requests.get(index)?).ok()?, conflict))
    }

    fn tracking_conflict(&self, row: i64) -> Option<(usize, Conflict)> {
        let index = usize::try_from(row).ok()?.checked_sub(1)?;
        let conflict = Conflict::Tracking {
            application_name: (*self.application_names.get(index)?).to_owned(),
            notification_id: *self.firsts.get(index)?,
        };
        Some((usize::try_from(*self.tracking_requests.get(index)?).ok()?, conflict))
    }
}

/// The column of the statement's answer (not of the function's, which raises an error instead) that
/// says how many positions were not recorded.
const LOST: &str = "lost";

/// SQLSTATEs by which the server says that a function is not there any more, or a tracking table's
/// primary key another.
pub(crate) const OUTDATED: [&str; 2] = ["42883", "42P10"];

/// Makes a transaction one that cannot be committed.
const ABORT: &str = "DO $$ BEGIN RAISE unique_violation USING MESSAGE = \
                     'a tracking position was recorded at the same time'; END $$";

/// Fetches the one row of an answer, and the end of the answer too: the row may arrive before the
/// commit is durable.
async fn fetch_row(
    connection: &mut PgConnection,
    sql: &SqlStr,
    arguments: PgArguments,
    persistent: bool,
) -> Result<PgRow, sqlx::Error> {
    let query = sqlx::query_with(sql.clone(), arguments).persistent(persistent);
    query.fetch_all(connection).await?.pop().ok_or(sqlx::Error::RowNotFound)
}

/// What the server answers to a group.
struct Answer {
    refused_rows: Vec<i64>,
    refused_tracking: Vec<i64>,
    notification_ids: Vec<i64>,
}

impl Answer {
    fn of(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            refused_rows: row.try_get(0)?,
            refused_tracking: row.try_get(1)?,
            notification_ids: row.try_get(2)?,
        })
    }

    fn outcomes(self, batches: &[Batch<'_>], rows: &Rows<'_>) -> Result<Vec<Outcome>, PersistenceError> {
        let nonsense = || PersistenceError::internal("an append's answer does not fit its rows");
        let mut conflicts: Vec<Option<Conflict>> = vec![None; batches.len()];
        let versions = self.refused_rows.iter().map(|row| rows.version_conflict(*row));
        let positions = self.refused_tracking.iter().map(|row| rows.tracking_conflict(*row));
        // Who has lost a position is told so, and not of the events that the winner has recorded: there is
        // nothing left to do.
        for refused in positions.chain(versions) {
            let (request, conflict) = refused.ok_or_else(nonsense)?;
            conflicts.get_mut(request).ok_or_else(nonsense)?.get_or_insert(conflict);
        }
        let mut ids = self.notification_ids.into_iter();
        let has_ids = ids.len() > 0;
        let outcomes = batches.iter().zip(conflicts).map(|(batch, conflict)| match conflict {
            Some(conflict) => Ok(Err(conflict)),
            None if !has_ids => Ok(Ok(Vec::new())),
            None => {
                let own: Vec<i64> = ids.by_ref().take(batch.events.len()).collect();
                if own.len() == batch.events.len() { Ok(Ok(own)) } else { Err(nonsense()) }
            }
        });
        outcomes.collect()
    }
}

//! The segments of partitioned consumers: tables beside the one of tracking records.

use std::time::Duration;

use es_core::{
    ErrorKind, PersistenceError, Segment, SegmentChange, SegmentRecorder, SegmentStep, SegmentWorker,
    Segments, Tracking,
};
use sqlx::{
    Arguments, AssertSqlSafe, Row,
    postgres::{PgArguments, PgConnection, PgRow},
};

use crate::{
    connection::{
        LeaseKind,
        session::{self, Access},
    },
    error,
    quote::quote_literal,
    recorder::{PostgresProcessRecorder, PostgresTrackingRecorder, Store},
    schema::{self, Layout, TableName},
};

const UNDEFINED_TABLE: &str = "42P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// The longest pause of a process within a change, after which the server ends its session. The changes of
/// all workers would wait for a process that is suspended meanwhile, and their leases end.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

macro_rules! record_segments {
    ($($recorder:ident),+) => {$(
        impl SegmentRecorder for $recorder {
            async fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
                let none = || Segments::new(consumer_name, Vec::new(), Vec::new());
                transact(&self.0, consumer_name, None).await.map(|found| found.unwrap_or_else(none))
            }

            async fn change_segments(
                &self,
                consumer_name: &str,
                change: SegmentChange,
            ) -> Result<Segments, PersistenceError> {
                // Before it is a part of a statement.
                Tracking::new(consumer_name, 0)?;
                let changed = transact(&self.0, consumer_name, Some(&change)).await?;
                changed.ok_or_else(|| {
                    let message = "the tables of segments are missing: create the segments first";
                    PersistenceError::programming(message)
                })
            }
        }
    )+};
}

record_segments!(PostgresProcessRecorder, PostgresTrackingRecorder);

/// The names of the tables.
struct Tables {
    tracking: TableName,
    segments: TableName,
    workers: TableName,
}

impl Tables {
    fn of(store: &Store) -> Result<Self, PersistenceError> {
        let appender = store.appender.get();
        let tracking = appender.tables.tracking.as_ref();
        let tracking =
            tracking.ok_or_else(|| PersistenceError::internal("a recorder without a tracking table"))?;
        // Rows of other positions could be inserted beside the one that is moved.
        if tracking.layout == Layout::RowPerRecord {
            return Err(PersistenceError::not_supported(
                "segments with a tracking table that has a row for each record: version 9.5 of the Python library \
                 migrates it",
            ));
        }
        let beside =
            |suffix| TableName::new(tracking.name.schema(), &format!("{}_{suffix}", tracking.name.name()));
        Ok(Self {
            segments: beside("segments")?,
            workers: beside("workers")?,
            tracking: tracking.name.clone(),
        })
    }

    async fn create(&self, connection: &mut PgConnection) -> Result<(), PersistenceError> {
        let (segments, workers) = (self.segments.quoted(), self.workers.quoted());
        let statements = format!(
            "CREATE TABLE IF NOT EXISTS {segments} (consumer_name text, first_hash bigint, \
             last_hash bigint NOT NULL, epoch bigint NOT NULL, owner text, tracking_name text NOT NULL, \
             PRIMARY KEY (consumer_name, first_hash)); \
             CREATE TABLE IF NOT EXISTS {workers} (consumer_name text, worker text, \
             expires_at bigint NOT NULL, PRIMARY KEY (consumer_name, worker));"
        );
        schema::create(connection, &self.segments, &statements).await
    }
}

/// Returns the segments of a consumer, after a change; `None` if the tables are missing.
async fn transact(
    store: &Store,
    consumer_name: &str,
    change: Option<&SegmentChange>,
) -> Result<Option<Segments>, PersistenceError> {
    store.check_open()?;
    let tables = Tables::of(store)?;
    let options = &store.database.options;
    let connections = &store.database.connections;
    let kind = if change.is_some() { LeaseKind::Write } else { LeaseKind::Read };
    let mut lease = connections.lease(kind).await?;
    let backend = lease.backend();
    let connection: &mut PgConnection = &mut lease;
    let creates = matches!(change, Some(SegmentChange::Create(_) | SegmentChange::Restore(_)));
    if creates && options.create_table {
        let creating = tables.create(connection);
        connections
            .with_liveness_check(backend, creating)
            .await
            .map_err(|failed| failure(failed, None))??;
    }
    let transaction = Transaction {
        is_persistent: !options.transaction_pooler,
        connection,
        tables: &tables,
        consumer_name,
    };
    let access = if change.is_some() { Access::ReadWrite } else { Access::ReadOnly };
    let mut begin = session::begin(options, access);
    if change.is_some() {
        begin.push_str(&session::idle_timeout(LONGEST_PAUSE));
    }
    let running = transaction.run(&begin, change);
    let outcome = connections.with_liveness_check(backend, running).await.flatten();
    let outcome = outcome.map_err(|failed| failure(failed, change))?;
    lease.finish();
    outcome
}

/// A transaction on the tables, on a connection of its own.
struct Transaction<'a> {
    connection: &'a mut PgConnection,
    tables: &'a Tables,
    consumer_name: &'a str,
    is_persistent: bool,
}

impl Transaction<'_> {
    async fn run(
        mut self,
        begin: &str,
        change: Option<&SegmentChange>,
    ) -> Result<Result<Option<Segments>, PersistenceError>, sqlx::Error> {
        session::run(self.connection, begin).await?;
        let (outcome, end) = match self.change(change).await {
            Ok(Ok(segments)) => (Ok(Some(segments)), "COMMIT"),
            Ok(Err(refused)) => (Err(refused), "ROLLBACK"),
            Err(failed) if error::has_sqlstate(&failed, &[UNDEFINED_TABLE]) => (Ok(None), "ROLLBACK"),
            Err(failed) => return Err(failed),
        };
        session::run(self.connection, end).await?;
        Ok(outcome)
    }

    async fn change(
        &mut self,
        change: Option<&SegmentChange>,
    ) -> Result<Result<Segments, PersistenceError>, sqlx::Error> {
        let Some(change) = change else { return self.load().await.map(Ok) };
        // The changes of a consumer exclude each other. Commits of positions do not wait for this lock.
        let lock = format!("{} {}", self.tables.segments.quoted(), self.consumer_name);
        let lock = format!("SELECT pg_advisory_xact_lock(hashtextextended({}, 0))", quote_literal(&lock));
        session::run(self.connection, &lock).await?;
        let mut segments = self.load().await?;
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint".to_owned();
        let now = self.fetch(now, PgArguments::default()).await?;
        let now = now.first().map_or(Ok(0), |row| row.try_get(0))?;
        let steps = match segments.apply(change, now) {
            Ok(steps) => steps,
            Err(refused) => return Ok(Err(refused)),
        };
        for step in steps {
            if let Err(refused) = self.perform(step).await? {
                return Ok(Err(refused));
            }
        }
        Ok(Ok(segments))
    }

    async fn load(&mut self) -> Result<Segments, sqlx::Error> {
        let Tables { tracking, segments, workers } = self.tables;
        let select = format!(
            "SELECT s.first_hash, s.last_hash, s.epoch, s.owner, t.notification_id FROM {} AS s \
             LEFT JOIN {} AS t ON t.application_name = s.tracking_name WHERE s.consumer_name = $1",
            segments.quoted(),
            tracking.quoted()
        );
        let segments = self.fetch(select, arguments((self.consumer_name,))?).await?;
        let segment = |row: &PgRow| {
            let position: Option<i64> = row.try_get(4)?;
            let position = position.unwrap_or(Segment::UNSTARTED);
            Ok(Segment::new(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, position))
        };
        let segments = segments.iter().map(segment).collect::<Result<_, sqlx::Error>>()?;
        let select = format!("SELECT worker, expires_at FROM {} WHERE consumer_name = $1", workers.quoted());
        let workers = self.fetch(select, arguments((self.consumer_name,))?).await?;
        let worker = |row: &PgRow| Ok(SegmentWorker::new(row.try_get::<String, _>(0)?, row.try_get(1)?));
        let workers = workers.iter().map(worker).collect::<Result<_, sqlx::Error>>()?;
        Ok(Segments::new(self.consumer_name, segments, workers))
    }

    async fn perform(&mut self, step: SegmentStep) -> Result<Result<(), PersistenceError>, sqlx::Error> {
        let Tables { tracking, segments, workers } = self.tables;
        let [tracking, segments, workers] = [tracking, segments, workers].map(TableName::quoted);
        let consumer_name = self.consumer_name;
        let move_position = format!(
            "UPDATE {tracking} SET application_name = $2, notification_id = COALESCE(NULLIF(notification_id, 0), {}) \
             WHERE application_name = $1 RETURNING 1",
            Segment::UNSTARTED
        );
        let insert_position =
            format!("INSERT INTO {tracking} (application_name, notification_id) VALUES ($1, $2)");
        match step {
            SegmentStep::PutSegment(segment) => {
                let put = format!(
                    "INSERT INTO {segments} (consumer_name, first_hash, last_hash, epoch, owner, tracking_name) \
                     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (consumer_name, first_hash) DO UPDATE \
                     SET last_hash = excluded.last_hash, epoch = excluded.epoch, owner = excluded.owner, \
                     tracking_name = excluded.tracking_name"
                );
                let name = segment.tracking_name(consumer_name);
                let Segment { first_hash, last_hash, epoch, owner, .. } = segment;
                self.fetch(put, arguments((consumer_name, first_hash, last_hash, epoch, owner, name))?)
                    .await?;
            }
            SegmentStep::RemoveSegment { first_hash } => {
                let remove = format!("DELETE FROM {segments} WHERE consumer_name = $1 AND first_hash = $2");
                self.fetch(remove, arguments((consumer_name, first_hash))?).await?;
            }
            SegmentStep::PutWorker(SegmentWorker { name, expires_at, .. }) => {
                let put = format!(
                    "INSERT INTO {workers} (consumer_name, worker, expires_at) VALUES ($1, $2, $3) \
                     ON CONFLICT (consumer_name, worker) DO UPDATE SET expires_at = excluded.expires_at"
                );
                self.fetch(put, arguments((consumer_name, name, expires_at))?).await?;
            }
            SegmentStep::RemoveWorker { name } => {
                let remove = format!("DELETE FROM {workers} WHERE consumer_name = $1 AND worker = $2");
                self.fetch(remove, arguments((consumer_name, name))?).await?;
            }
            SegmentStep::BeginPosition { from, to } => {
                if self.fetch(move_position, arguments((from, to.clone()))?).await?.is_empty() {
                    self.fetch(insert_position, arguments((to, Segment::UNSTARTED))?).await?;
                }
            }
            SegmentStep::MovePosition { from, to, position } => {
                if let Err(refused) = self.lock_position(&tracking, &from, position).await? {
                    return Ok(Err(refused));
                }
                self.fetch(move_position, arguments((from, to))?).await?;
            }
            SegmentStep::CopyPosition { from, to } => {
                let copy = format!(
                    "INSERT INTO {tracking} (application_name, notification_id) \
                     SELECT $2, notification_id FROM {tracking} WHERE application_name = $1"
                );
                self.fetch(copy, arguments((from, to))?).await?;
            }
            SegmentStep::InsertPosition { name, position } => {
                self.fetch(insert_position, arguments((name, position))?).await?;
            }
            SegmentStep::RemovePosition { name, position } => {
                if let Err(refused) = self.lock_position(&tracking, &name, Some(position)).await? {
                    return Ok(Err(refused));
                }
                let remove = format!("DELETE FROM {tracking} WHERE application_name = $1");
                self.fetch(remove, arguments((name,))?).await?;
            }
            other => {
                let message = format!("an unknown step of a change of segments: {other:?}");
                return Ok(Err(PersistenceError::internal(message)));
            }
        }
        Ok(Ok(()))
    }

    /// Locks a position, so that no commit can record it any more.
    ///
    /// A commit that has it locked is not waited for: a projection may hold it for as long as its handlers
    /// run, and leases could not be renewed meanwhile.
    async fn lock_position(
        &mut self,
        tracking: &str,
        name: &str,
        required: Option<i64>,
    ) -> Result<Result<(), PersistenceError>, sqlx::Error> {
        let lock =
            format!("SELECT notification_id FROM {tracking} WHERE application_name = $1 FOR UPDATE NOWAIT");
        let locked = match self.fetch(lock, arguments((name.to_owned(),))?).await {
            Err(failed) if error::has_sqlstate(&failed, &[LOCK_NOT_AVAILABLE]) => Vec::new(),
            locked => locked?,
        };
        let position = locked.first().map(|row| row.try_get::<i64, _>(0)).transpose()?;
        let is_met = position.is_some() && required.is_none_or(|required| position == Some(required));
        Ok(if is_met { Ok(()) } else { Err(SegmentStep::refused(name)) })
    }

    async fn fetch(&mut self, sql: String, arguments: PgArguments) -> Result<Vec<PgRow>, sqlx::Error> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments).persistent(self.is_persistent);
        query.fetch_all(&mut *self.connection).await
    }
}

/// Values that are the arguments of a statement.
trait IntoArguments {
    fn add_to(self, arguments: &mut PgArguments) -> Result<(), sqlx::error::BoxDynError>;
}

macro_rules! into_arguments {
    ($($value:ident)+) => {
        impl<$($value,)+> IntoArguments for ($($value,)+)
        where
            $($value: for<'q> sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,)+
        {
            #[expect(non_snake_case, reason = "the types name the values")]
            fn add_to(self, arguments: &mut PgArguments) -> Result<(), sqlx::error::BoxDynError> {
                let ($($value,)+) = self;
                $(arguments.add($value)?;)+
                Ok(())
            }
        }
    };
}

into_arguments!(A);
into_arguments!(A B);
into_arguments!(A B C);
into_arguments!(A B C D E F);

fn arguments(values: impl IntoArguments) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    values.add_to(&mut arguments).map_err(sqlx::Error::Encode)?;
    Ok(arguments)
}

/// Returns the error of a transaction that failed.
fn failure(failed: sqlx::Error, change: Option<&SegmentChange>) -> PersistenceError {
    if change.is_some() && error::is_lost(&failed) {
        let message = "the connection was lost while segments were changed";
        return PersistenceError::new(ErrorKind::OutcomeUnknown, message).with_source(failed);
    }
    let operation = if change.is_some() { "changing segments" } else { "reading segments" };
    error::from_statement(operation, failed)
}

//! A projection that keeps the last version of each aggregate, and refuses one that is not the next: a
//! notification that is skipped or projected twice fails at once.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use es_core::{HandlerError, Notification, NotificationConsumer, TrackingRecorderExt};
use es_faults::test_database::ProcessRecorder;
use es_postgres::PostgresProjection;
use es_process::Processor;
use es_sqlite::{SqliteProjection, rusqlite};
use sqlx::{AssertSqlSafe, Postgres};
use tokio::time::sleep;

use crate::{
    ledger::{self, AGGREGATES},
    workload::Workload,
};

/// The name under which the position is tracked.
const UPSTREAM: &str = "soak";

const TABLE: &str = "soak_versions";

/// The time a processor runs before it is stopped, in milliseconds.
const STAY: std::ops::Range<u64> = 1_000..15_000;

/// Beyond the longest catch-up that anybody waits for.
const CATCH_UP: Duration = Duration::from_secs(120);

/// One notification in so many asks the session how many statements it has prepared.
const ASKS: i64 = 256;

/// The last version of each aggregate, in a table.
#[derive(Debug)]
struct Versions {
    workload: Arc<Workload>,
    table: String,
}

/// Projects until the end of the log, by processors that are dropped in the middle and started anew.
///
/// # Errors
/// When a notification is not the next, or the processor stops by itself.
pub async fn follow(workload: Arc<Workload>) -> Result<()> {
    loop {
        workload.meters.processors.add(1);
        let versions = Versions { workload: Arc::clone(&workload), table: workload.database.table(TABLE) };
        let is_at_end = match &workload.process {
            ProcessRecorder::Sqlite(recorder) => run(&workload, recorder.projector(versions).await?).await?,
            ProcessRecorder::Postgres(recorder) => {
                run(&workload, recorder.projector(versions).await?).await?
            }
            _ => anyhow::bail!("a recorder that does not project"),
        };
        if is_at_end {
            return check(&workload).await;
        }
    }
}

/// Runs a processor for a while; true if it has reached the end of the log.
async fn run(workload: &Workload, downstream: impl NotificationConsumer) -> Result<bool> {
    let mut processor = Processor::with_consumer(UPSTREAM, workload.recorder.clone(), downstream);
    let at_end = async {
        let end = workload.ended().await;
        workload.recorder.wait(UPSTREAM, end, CATCH_UP).await
    };
    tokio::select! {
        ended = processor.run() => {
            ended.context("the processor")?;
            anyhow::bail!("the processor ended although nothing was closed")
        }
        at_end = at_end => at_end.map(|()| true).context("waiting for the processor"),
        () = sleep(Duration::from_millis(fastrand::u64(STAY))) => Ok(false),
    }
}

/// Checks that the table equals the acknowledged events.
async fn check(workload: &Workload) -> Result<()> {
    let projected = workload.database.numbers(TABLE, "version", "aggregate").await?;
    let acknowledged = (0..AGGREGATES).map(|aggregate| workload.ledger.version(aggregate));
    let acknowledged: Vec<i64> = acknowledged.filter(|version| *version > 0).collect();
    ensure!(projected == acknowledged, "the projection differs from what is acknowledged");
    Ok(())
}

impl Versions {
    /// The aggregate and version of a notification.
    fn next(&self, notification: &Notification) -> Result<(i64, i64)> {
        self.workload.meters.projected.add(1);
        self.workload.meters.projection.record(ledger::age(notification));
        let aggregate = ledger::aggregate(&notification.event).context("an event that no writer recorded")?;
        Ok((i64::try_from(aggregate)?, notification.event.originator_version))
    }

    /// The statement that moves an aggregate from the version before to this one. SQLite numbers `$n` by
    /// where it first appears, so that the version, which comes first in one of them, does in both.
    fn statement(&self, version: i64) -> String {
        let table = &self.table;
        if version == 1 {
            format!("INSERT INTO {table} (version, aggregate) VALUES ($1, $2)")
        } else {
            format!("UPDATE {table} SET version = $1 WHERE aggregate = $2 AND version = $1 - 1")
        }
    }

    fn create(&self) -> String {
        let table = &self.table;
        format!("CREATE TABLE IF NOT EXISTS {table} (aggregate bigint PRIMARY KEY, version bigint NOT NULL)")
    }
}

fn is_next(rows: u64, (aggregate, version): (i64, i64)) -> Result<()> {
    ensure!(rows == 1, "version {version} of aggregate {aggregate} was projected, and is not the next");
    Ok(())
}

impl SqliteProjection for Versions {
    type Error = HandlerError;

    fn set_up(&mut self, transaction: &rusqlite::Transaction<'_>) -> Result<(), HandlerError> {
        Ok(transaction.execute_batch(&self.create())?)
    }

    fn project(
        &mut self,
        transaction: &rusqlite::Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let next = self.next(notification)?;
        let rows = transaction.prepare_cached(&self.statement(next.1))?.execute((next.1, next.0))?;
        Ok(is_next(rows as u64, next)?)
    }
}

impl PostgresProjection for Versions {
    type Error = HandlerError;

    async fn set_up(
        &mut self,
        transaction: &mut sqlx::Transaction<'_, Postgres>,
    ) -> Result<(), HandlerError> {
        sqlx::query(AssertSqlSafe(self.create())).execute(&mut **transaction).await?;
        Ok(())
    }

    async fn project(
        &mut self,
        transaction: &mut sqlx::Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let next = self.next(notification)?;
        let statement = sqlx::query(AssertSqlSafe(self.statement(next.1))).bind(next.1).bind(next.0);
        let done = statement.execute(&mut **transaction).await?;
        is_next(done.rows_affected(), next)?;
        if notification.id % ASKS == 0 {
            let count = sqlx::query_scalar("SELECT count(*) FROM pg_prepared_statements");
            let count: i64 = count.fetch_one(&mut **transaction).await?;
            self.workload.meters.statements.store(count, Ordering::Relaxed);
        }
        Ok(())
    }
}

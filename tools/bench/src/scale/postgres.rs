//! The costs on PostgreSQL, by the server's own counters.

use std::time::Duration;

use anyhow::Result;
use es_core::{AggregateRecorder, ApplicationRecorder, EventRange, NotificationSelection};
use es_postgres::PostgresApplicationRecorder;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Cost, PAGE, REPEATED, Sample, log};
use crate::{
    data::{Ids, STATE_SIZE, Supply},
    systems::postgres_schema::Schema,
};

pub(super) const BACKEND: &str = "PostgreSQL";
const KEY_INDEX: &str = "stored_events_pkey";
const ID_INDEX: &str = "stored_events_notification_id_idx";
/// The pause between looks at the number of connections.
const PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn measure(ids: Ids, stored: usize) -> Result<Sample> {
    let schema = Schema::filled("scale", log::events(ids, stored)).await?;
    let mut connection = schema.connect().await?;
    // Its reads would be counted.
    execute(&mut connection, "ALTER TABLE stored_events SET (autovacuum_enabled = off)").await?;
    let per_event = async |connection: &mut PgConnection, relation: &'static str| -> Result<f64> {
        let select = sqlx::query_scalar("SELECT pg_relation_size($1::regclass)").bind(relation);
        Ok(select.fetch_one(connection).await.map(|bytes: i64| bytes as f64 / stored as f64)?)
    };
    let mut costs = vec![
        (Cost::TableBytes, per_event(&mut connection, "stored_events").await?),
        (Cost::KeyBytes, per_event(&mut connection, KEY_INDEX).await?),
        (Cost::IdBytes, per_event(&mut connection, ID_INDEX).await?),
        (Cost::KeyLevels, levels(&mut connection).await?),
    ];
    let supply = Supply::starting_at(1 << 32).with_ids(ids);
    execute(&mut connection, "CHECKPOINT").await?;
    let appended = counted(&schema, &mut connection, async |recorder| {
        for _ in 0..REPEATED {
            recorder.insert_events(supply.events(1, STATE_SIZE)).await?;
        }
        Ok(())
    })
    .await?;
    costs.extend([
        (Cost::AppendPages, appended.pages),
        (Cost::AppendReads, appended.reads),
        (Cost::AppendLog, appended.log_bytes),
        (Cost::AppendImages, appended.log_images),
    ]);
    let loaded = counted(&schema, &mut connection, async |recorder| {
        for aggregate in log::aggregates(stored, REPEATED) {
            recorder.select_events(ids.stored(aggregate), EventRange::all()).await?;
        }
        Ok(())
    })
    .await?;
    costs.extend([(Cost::LoadPages, loaded.pages), (Cost::LoadReads, loaded.reads)]);
    let read = counted(&schema, &mut connection, async |recorder| {
        for number in 0..REPEATED {
            let after = (number * 7_919 * PAGE % (stored - PAGE)) as i64;
            recorder.select_notifications(NotificationSelection::new(PAGE).after(after)).await?;
        }
        Ok(())
    })
    .await?;
    costs.push((Cost::ReadPages, read.pages));
    schema.drop().await?;
    Ok(Sample { backend: BACKEND.to_owned(), ids, stored, costs })
}

/// Returns the version and the settings that matter.
pub(super) async fn settings() -> Result<String> {
    Schema::existing("scale")?.durability().await
}

/// The server's counters, or the cost of one operation by them.
#[derive(Clone, Copy, Default)]
struct Counters {
    pages: f64,
    reads: f64,
    log_bytes: f64,
    log_images: f64,
}

impl Counters {
    /// Returns the cost of one of the repeated operations, without what opening a recorder costs.
    fn per_operation(self, idle: Self) -> Self {
        let per = |counted: f64, idle: f64| (counted - idle).max(0.0) / REPEATED as f64;
        Self {
            pages: per(self.pages, idle.pages),
            reads: per(self.reads, idle.reads),
            log_bytes: per(self.log_bytes, idle.log_bytes),
            log_images: per(self.log_images, idle.log_images),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            pages: self.pages - before.pages,
            reads: self.reads - before.reads,
            log_bytes: self.log_bytes - before.log_bytes,
            log_images: self.log_images - before.log_images,
        }
    }
}

/// Returns what one operation of `work` costs, on a recorder of its own.
async fn counted(
    schema: &Schema,
    connection: &mut PgConnection,
    work: impl AsyncFnOnce(&PostgresApplicationRecorder) -> Result<()>,
) -> Result<Counters> {
    let start = counters(connection).await?;
    with_recorder(schema, connection, async |_| Ok(())).await?;
    let idle = counters(connection).await?;
    with_recorder(schema, connection, work).await?;
    Ok(counters(connection).await?.since(idle).per_operation(idle.since(start)))
}

/// Runs `work`, and returns when the server has ended the recorder's connections: a session adds its counts
/// to the statistics when it ends.
async fn with_recorder(
    schema: &Schema,
    connection: &mut PgConnection,
    work: impl AsyncFnOnce(&PostgresApplicationRecorder) -> Result<()>,
) -> Result<()> {
    let datastore = schema.options().open().await?;
    let recorder = datastore.application_recorder("").await?;
    work(&recorder).await?;
    drop(recorder);
    datastore.close().await?;
    wait_for_sessions(connection).await
}

/// Waits until this is the only session of a client.
pub(super) async fn wait_for_sessions(connection: &mut PgConnection) -> Result<()> {
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    while sqlx::query_scalar::<_, i64>(OTHERS).fetch_one(&mut *connection).await? > 0 {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn counters(connection: &mut PgConnection) -> Result<Counters> {
    const SELECT: &str = "SELECT (heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read)::float8, \
         (heap_blks_read + idx_blks_read)::float8, (pg_current_wal_insert_lsn() - '0/0')::float8, \
         (SELECT wal_fpi::float8 FROM pg_stat_wal) \
         FROM pg_statio_user_tables WHERE relid = 'stored_events'::regclass";
    let row = sqlx::query(SELECT).fetch_one(connection).await?;
    let counter = |column: usize| row.try_get(column);
    Ok(Counters { pages: counter(0)?, reads: counter(1)?, log_bytes: counter(2)?, log_images: counter(3)? })
}

/// Returns the pages from the root to a leaf, which the extension `pageinspect` knows.
async fn levels(connection: &mut PgConnection) -> Result<f64> {
    execute(connection, "CREATE EXTENSION IF NOT EXISTS pageinspect SCHEMA public").await?;
    let select = sqlx::query_scalar("SELECT level::int8 FROM public.bt_metap($1)").bind(KEY_INDEX);
    Ok(select.fetch_one(connection).await.map(|root: i64| root as f64 + 1.0)?)
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await?;
    Ok(())
}

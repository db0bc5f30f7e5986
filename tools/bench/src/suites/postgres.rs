//! PostgreSQL: our recorder, in both orderings, compared with bare sqlx, the Python library and peers.

use anyhow::Result;
use es_core::StoredEvent;
use es_postgres::NotificationOrdering;

use super::{
    backend::{Backend, Suite},
    sizes::Appends,
};
use crate::{
    bench::Bench,
    data::{STATE_SIZE, Supply},
    plan::Plan,
    report::Measure,
    system::{StoreSystem, System},
    systems::{
        bare_postgres::{Connections, Pool, Tracking},
        postgres_schema::Schema,
        program::{Datastore, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
        recorder::{RecorderStore, TrackingStore},
    },
    workload::Work,
};

const OURS: &str = "es-postgres";
const PARALLEL: &str = "es-postgres, parallel";
const BARE: &str = "bare sqlx";
const BARE_ROWS: &str = "bare sqlx, rows in one insert";
const BARE_COPY: &str = "bare sqlx, COPY BINARY";
const BARE_64: &str = "bare sqlx, 64 connections";
const BARE_TRACKING: &str = "bare sqlx, two statements in a transaction";
const BARE_POOL: &str = "bare sqlx, its pool's defaults";

pub(crate) async fn run(bench: &mut Bench, programs: &Programs) -> Result<()> {
    bench.report_durability("PostgreSQL", &Schema::existing("")?.durability().await?);
    let outcome = run_all(bench, programs).await;
    Schema::drop_all().await?;
    outcome
}

async fn run_all(bench: &mut Bench, programs: &Programs) -> Result<()> {
    let suite = Suite::new(bench, Schemas { is_tracked: false }, &programs.python, &programs.postgres);
    appends(&suite, bench).await?;
    tracking(bench, programs).await?;
    let hot = |plan: Plan| {
        let plan = plan.faster(1.3, BARE_64);
        let plan = plan.compare(PYTHON_9_1, Measure::Speed).compare(PYTHON_9_5, Measure::Speed);
        plan.subject(PARALLEL).faster(1.3, BARE_64).p99_milliseconds(200.0)
    };
    suite.contention(bench, 9, &[OURS, PARALLEL, BARE_64], hot).await?;
    let commits = bench.scale.pick(100, 2);
    suite.processes(bench, commits, &[PARALLEL, OURS], |plan| plan.faster(2.0, OURS)).await?;
    let readers = [OURS, PARALLEL, BARE];
    let reads = |name, work: &Work| {
        let rounds = if matches!(work, Work::Load { events: 100.., .. }) { 11 } else { 7 };
        Plan::new(name, rounds).within(1.15, BARE).faster(8.0, PYTHON_9_1).faster(4.0, PYTHON_9_5)
    };
    suite.reads(bench, &readers, reads).await?;
    let paced = |name| Plan::new(name, 7).within(1.15, BARE).faster(1.5, PYTHON_9_1).faster(1.5, PYTHON_9_5);
    suite.paced_loads(bench, &readers, paced).await?;
    let paced =
        |plan: Plan| plan.within(1.15, BARE).faster(1.0, PYTHON_9_1).compare(PYTHON_9_5, Measure::Speed);
    suite.paced_append(bench, 11, &readers, paced).await?;
    suite.stream_memory(bench).await
}

async fn appends(suite: &Suite<'_, Schemas>, bench: &mut Bench) -> Result<()> {
    for appends in Appends::ALONE {
        let plan = appends.plan("PostgreSQL", 11).compare(PYTHON_9_5, Measure::Speed);
        let (bare, plan) = match appends.events {
            1 => (BARE, plan.within(1.15, BARE).faster(1.4, PYTHON_9_1)),
            1_000 => {
                let times = if appends.size == STATE_SIZE { 1.1 } else { 1.25 };
                (BARE_COPY, plan.within(times, BARE_COPY).faster(4.0, PYTHON_9_1))
            }
            _ => {
                let plan = plan.compare(BARE_ROWS, Measure::Time);
                (BARE_ROWS, plan.compare(PYTHON_9_1, Measure::Speed))
            }
        };
        suite.on_empty(bench, plan, &[OURS, PARALLEL, bare], &appends.work(bench)).await?;
    }
    for appends in Appends::TOGETHER {
        let plan = appends.plan("PostgreSQL", 9).compare(PYTHON_9_5, Measure::Speed);
        let plan = match appends.tasks {
            64 => plan.faster(25.0, PYTHON_9_1).faster(3.5, BARE_64).p99_within(BARE_64),
            256 => plan.compare(PYTHON_9_1, Measure::Speed).faster(4.0, BARE_64),
            _ => plan.compare(PYTHON_9_1, Measure::Speed).compare(BARE_64, Measure::Speed),
        };
        let plan = plan.compare(BARE_POOL, Measure::Speed);
        suite.on_empty(bench, plan, &[OURS, PARALLEL, BARE_64, BARE_POOL], &appends.work(bench)).await?;
    }
    Ok(())
}

/// Measures one event and a position in one commit.
async fn tracking(bench: &mut Bench, programs: &Programs) -> Result<()> {
    let suite = Suite::new(bench, Schemas { is_tracked: true }, &programs.python, &[]);
    let work = Work::Append { tasks: 1, commits: bench.scale.pick(300, 2), events: 1, size: STATE_SIZE };
    let plan = Plan::new("PostgreSQL insert with tracking, 1 task, 1 × 200 B per commit", 11)
        .within(1.25, BARE_TRACKING)
        .compare(PYTHON_9_1, Measure::Speed)
        .compare(PYTHON_9_5, Measure::Speed);
    suite.on_empty(bench, plan, &[OURS, PARALLEL, BARE_TRACKING], &work).await
}

/// Opens a system on a schema.
pub(super) async fn open(
    system: &str,
    name: &str,
    schema: &str,
    is_tracked: bool,
    work: &Work,
    supply: Supply,
) -> Result<Box<dyn System>> {
    let schema = Schema::existing(schema)?;
    let ordering = match system {
        OURS => NotificationOrdering::Serialized,
        PARALLEL => NotificationOrdering::Parallel,
        BARE_TRACKING => {
            return Ok(StoreSystem::supplied(name, Tracking::open(&schema).await?, work, supply));
        }
        BARE_POOL => return Ok(StoreSystem::supplied(name, Pool::open(&schema), work, supply)),
        _ => {
            let count = if system == BARE_64 { 64 } else { 1 };
            let connections = Connections::open(&schema, count).await?;
            return Ok(StoreSystem::supplied(name, connections, work, supply));
        }
    };
    let datastore = schema.options().ordering(ordering).open().await?;
    Ok(if is_tracked {
        let store = TrackingStore::new(datastore.process_recorder("").await?);
        StoreSystem::supplied(name, store, work, supply)
    } else {
        let store = RecorderStore(datastore.application_recorder("").await?);
        StoreSystem::supplied(name, store, work, supply)
    })
}

/// Schemas on the server that the environment names.
pub(crate) struct Schemas {
    /// True if each append records a position, too.
    pub(crate) is_tracked: bool,
}

impl Backend for Schemas {
    const NAME: &'static str = "PostgreSQL";
    const OURS: &'static str = OURS;
    const LOADED: usize = 100_000;

    fn bare(is_concurrent: bool) -> (&'static str, &'static str) {
        (if is_concurrent { BARE_64 } else { BARE }, BARE)
    }

    async fn create(&self, system: &str) -> Result<Datastore> {
        let schema = Schema::create(system).await?;
        // Every other system creates its own tables.
        if system.starts_with(BARE) {
            schema.create_table().await?;
        }
        Ok(Datastore::Postgres { schema: schema.name().to_owned(), is_tracked: self.is_tracked })
    }

    async fn fill(&self, name: &str, events: impl Iterator<Item = StoredEvent>) -> Result<Datastore> {
        let schema = Schema::filled(name, events).await?.name().to_owned();
        Ok(Datastore::Postgres { schema, is_tracked: self.is_tracked })
    }

    async fn clear(&self) -> Result<()> {
        Schema::drop_all().await
    }
}

//! PostgreSQL: our recorder, in both of its modes, beside bare sqlx.

use std::sync::Arc;

use anyhow::Result;
use es_postgres::{Ordering, PostgresApplicationRecorder};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::fixture::Fixture;
use super::memory;
use crate::bench::{Bench, Plan};
use crate::child::{self, Job};
use crate::data::Supply;
use crate::report::Measure;
use crate::systems::bare_postgres::{Connections, Pool};
use crate::systems::postgres_schema::Schema;
use crate::systems::processes::Processes;
use crate::systems::recorder::RecorderStore;
use crate::workload::{Store, Work, Working, do_work};

const OURS: &str = "es-postgres";
const PARALLEL: &str = "es-postgres, parallel";
const BARE: &str = "bare sqlx";
const BARE_COPY: &str = "bare sqlx, COPY BINARY";
const BARE_64: &str = "bare sqlx, 64 connections";
const BARE_POOL: &str = "bare sqlx, its pool's defaults";

/// One schema for each contestant of an experiment, made anew for each experiment.
const OUR_SCHEMA: &str = "es_bench_ours";
const PARALLEL_SCHEMA: &str = "es_bench_parallel";
const BARE_SCHEMA: &str = "es_bench_bare";
const OTHER_BARE_SCHEMA: &str = "es_bench_other_bare";
const FILLED_SCHEMA: &str = "es_bench_filled";

const PROCESSES: u64 = 4;
const TASKS_OF_PROCESS: usize = 16;

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    let durability = Schema::existing(BARE_SCHEMA)?.durability().await?;
    bench.has_durability("PostgreSQL", durability);
    let outcome = experiments(bench).await;
    for name in [OUR_SCHEMA, PARALLEL_SCHEMA, BARE_SCHEMA, OTHER_BARE_SCHEMA, FILLED_SCHEMA] {
        Schema::existing(name)?.drop().await?;
    }
    outcome
}

async fn experiments(bench: &mut Bench) -> Result<()> {
    appends(bench).await?;
    group_commits(bench).await?;
    processes(bench).await?;
    let filled = Filled { fixture: Fixture::new(bench.scale), schema: OnceCell::new() };
    reads(bench, &filled).await?;
    stream(bench, &filled).await
}

async fn appends(bench: &mut Bench) -> Result<()> {
    for (events, commits, name, times) in [(1, 300, BARE, 1.2), (1_000, 10, BARE_COPY, 1.25)] {
        let work = Work::Append { tasks: 1, commits: bench.scale.pick(commits, 2), events };
        let plan =
            Plan::new(format!("PostgreSQL insert, 1 task, {events} per commit"), 15).within(times, name);
        bench
            .compete(plan, async || {
                Ok(vec![
                    Working::boxed(OURS, ours(OUR_SCHEMA, Ordering::TableLock).await?, &work),
                    Working::boxed(PARALLEL, ours(PARALLEL_SCHEMA, Ordering::Parallel).await?, &work),
                    Working::boxed(name, bare(BARE_SCHEMA, 1).await?, &work),
                ])
            })
            .await?;
    }
    Ok(())
}

async fn group_commits(bench: &mut Bench) -> Result<()> {
    let work = Work::Append { tasks: 64, commits: bench.scale.pick(20, 2), events: 1 };
    let plan = Plan::new("PostgreSQL insert, 64 tasks, 1 per commit", 15)
        .faster(4.0, BARE_64)
        .steadier(BARE_64)
        .beside(BARE_POOL, Measure::Speed);
    bench
        .compete(plan, async || {
            Ok(vec![
                Working::boxed(OURS, ours(OUR_SCHEMA, Ordering::TableLock).await?, &work),
                Working::boxed(PARALLEL, ours(PARALLEL_SCHEMA, Ordering::Parallel).await?, &work),
                Working::boxed(BARE_64, bare(BARE_SCHEMA, 64).await?, &work),
                Working::boxed(BARE_POOL, bare_pool(OTHER_BARE_SCHEMA).await?, &work),
            ])
        })
        .await
}

async fn processes(bench: &mut Bench) -> Result<()> {
    let commits = bench.scale.pick(100, 2);
    let plan = Plan::new("PostgreSQL insert, 4 processes of 16 tasks", 15).faster(2.0, OURS);
    let contestant = async |name, schema: &str, mode: Mode| {
        // The table is there before the processes come.
        drop(ours(schema, mode.ordering()).await?);
        let job = |process| {
            Job::Postgres(ChildJob::Append { schema: schema.to_owned(), mode, commits, first: process << 32 })
        };
        let events = PROCESSES as usize * TASKS_OF_PROCESS * commits;
        Processes::boxed(name, events, (0..PROCESSES).map(job))
    };
    bench
        .compete(plan, async || {
            Ok(vec![
                contestant(PARALLEL, PARALLEL_SCHEMA, Mode::Parallel).await?,
                contestant(OURS, OUR_SCHEMA, Mode::TableLock).await?,
            ])
        })
        .await
}

async fn reads(bench: &mut Bench, filled: &Filled) -> Result<()> {
    let Fixture { events, sizes } = filled.fixture;
    for (index, size) in sizes.into_iter().enumerate() {
        let work = Work::Load {
            originator_id: Fixture::originator(index),
            events: size,
            times: bench.scale.pick(100_000, size) / size,
        };
        let rounds = if size < 100 { 9 } else { 15 };
        read(bench, Plan::new(format!("PostgreSQL load, {size} events"), rounds), filled, &work).await?;
    }
    let work = Work::Page { events, page: 1_000 };
    read(bench, Plan::new(format!("PostgreSQL page through {events} by 1000"), 9), filled, &work).await
}

async fn read(bench: &mut Bench, plan: Plan, filled: &Filled, work: &Work) -> Result<()> {
    bench
        .compete(plan.within(1.15, BARE), async || {
            let schema = filled.schema().await?;
            Ok(vec![
                Working::boxed(OURS, recorder(schema, Ordering::TableLock).await?, work),
                Working::boxed(PARALLEL, recorder(schema, Ordering::Parallel).await?, work),
                Working::boxed(BARE, Connections::open(schema, 1).await?, work),
            ])
        })
        .await
}

async fn stream(bench: &mut Bench, filled: &Filled) -> Result<()> {
    let weigh = async || {
        let (schema, events) = (filled.schema().await?.name().to_owned(), filled.fixture.events);
        memory::weigh(&Job::Postgres(ChildJob::Stream { schema, events }))
    };
    bench.weigh("PostgreSQL stream, memory", OURS, memory::BOUND, weigh).await
}

async fn ours(schema: &str, ordering: Ordering) -> Result<impl Store> {
    recorder(&Schema::create(schema).await?, ordering).await
}

async fn recorder(schema: &Schema, ordering: Ordering) -> Result<RecorderStore<PostgresApplicationRecorder>> {
    let datastore = schema.options().ordering(ordering).open().await?;
    Ok(RecorderStore(datastore.application_recorder("").await?))
}

async fn bare(schema: &str, connections: usize) -> Result<Connections> {
    let schema = Schema::create(schema).await?;
    schema.create_table().await?;
    Connections::open(&schema, connections).await
}

async fn bare_pool(schema: &str) -> Result<Pool> {
    let schema = Schema::create(schema).await?;
    schema.create_table().await?;
    Ok(Pool::open(&schema))
}

/// The table that reads find, filled when the first of them needs it.
struct Filled {
    fixture: Fixture,
    schema: OnceCell<Schema>,
}

impl Filled {
    async fn schema(&self) -> Result<&Schema> {
        let fill = async || {
            let schema = Schema::create(FILLED_SCHEMA).await?;
            schema.create_table().await?;
            schema.fill(self.fixture.stored()).await?;
            Ok(schema)
        };
        self.schema.get_or_try_init(fill).await
    }
}

/// What a process of an experiment does.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum ChildJob {
    /// Streams all notifications.
    Stream { schema: String, events: usize },
    /// Commits single events from several tasks; `first` is the first aggregate that is this process's own.
    Append { schema: String, mode: Mode, commits: usize, first: u64 },
}

/// The recorder's modes, as processes tell each other.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Mode {
    TableLock,
    Parallel,
}

impl Mode {
    fn ordering(self) -> Ordering {
        match self {
            Self::TableLock => Ordering::TableLock,
            Self::Parallel => Ordering::Parallel,
        }
    }
}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        match self {
            Self::Stream { schema, events } => {
                let store = recorder(&Schema::existing(&schema)?, Ordering::TableLock).await?;
                memory::serve_stream(&store.0, events).await
            }
            Self::Append { schema, mode, commits, first } => {
                let store = Arc::new(recorder(&Schema::existing(&schema)?, mode.ordering()).await?);
                let work = Work::Append { tasks: TASKS_OF_PROCESS, commits, events: 1 };
                let supply = Supply::starting_at(first);
                child::serve(async || Ok(do_work(&store, &work, &supply).await?.elapsed.as_secs_f64())).await
            }
        }
    }
}

//! PostgreSQL: our recorder, in both of its modes, beside bare sqlx, the Python library and peers.

use std::sync::Arc;

use anyhow::Result;
use es_postgres::{NotificationOrdering, PostgresApplicationRecorder, PostgresProcessRecorder};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{
    fixture::Fixture,
    memory,
    sizes::{Appends, ahead_of},
};
use crate::{
    bench::Bench,
    child::{self, Job},
    system::{System, StoreSystem},
    data::{STATE_SIZE, Supply},
    plan::Plan,
    report::Measure,
    systems::{
        bare_postgres::{Connections, Pool, Tracking},
        postgres_schema::Schema,
        processes::Processes,
        program::{Datastore, Program, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
        recorder::{RecorderStore, TrackingStore},
        memory_use::MemoryUse,
    },
    workload::{Work, do_work},
};

const OURS: &str = "es-postgres";
const PARALLEL: &str = "es-postgres, parallel";
const BARE: &str = "bare sqlx";
const BARE_ROWS: &str = "bare sqlx, rows in one insert";
const BARE_COPY: &str = "bare sqlx, COPY BINARY";
const BARE_64: &str = "bare sqlx, 64 connections";
const BARE_TRACKING: &str = "bare sqlx, two statements in a transaction";
const BARE_POOL: &str = "bare sqlx, its pool's defaults";

/// Microseconds of other work between calls.
const PAUSE: u64 = 200;

const FILLED: &str = "filled";

const CONNECTIONS: usize = 64;
const PROCESSES: u64 = 4;
const TASKS_OF_PROCESS: usize = 16;

pub(crate) async fn run(bench: &mut Bench, programs: &Programs) -> Result<()> {
    let durability = Schema::existing(FILLED)?.durability().await?;
    bench.report_durability("PostgreSQL", &durability);
    let outcome = Suite { programs }.run(bench).await;
    Schema::drop_all().await?;
    outcome
}

struct Suite<'a> {
    programs: &'a Programs,
}

impl Suite<'_> {
    async fn run(&self, bench: &mut Bench) -> Result<()> {
        self.appends(bench).await?;
        self.tracking(bench).await?;
        self.contention(bench).await?;
        self.processes(bench).await?;
        let filled = Filled { fixture: Fixture::new(bench.scale), schema: OnceCell::new() };
        self.reads(bench, &filled).await?;
        self.paced(bench, &filled).await?;
        self.memory(bench, &filled).await
    }

    async fn appends(&self, bench: &mut Bench) -> Result<()> {
        for appends in Appends::ALONE {
            let plan = appends.plan("PostgreSQL", 11).compare(PYTHON_9_5, Measure::Speed);
            let plan = match appends.events {
                1 => plan.within(1.15, BARE).faster(1.4, PYTHON_9_1),
                1_000 if appends.size == STATE_SIZE => plan.within(1.1, BARE_COPY).faster(4.0, PYTHON_9_1),
                1_000 => plan.within(1.25, BARE_COPY).faster(4.0, PYTHON_9_1),
                _ => plan.compare(BARE_ROWS, Measure::Time).compare(PYTHON_9_1, Measure::Speed),
            };
            let bare = match appends.events {
                1 => BARE,
                1_000 => BARE_COPY,
                _ => BARE_ROWS,
            };
            self.append(bench, plan, &appends.work(bench), &[bare]).await?;
        }
        for appends in Appends::TOGETHER {
            let plan = appends.plan("PostgreSQL", 9).compare(PYTHON_9_5, Measure::Speed);
            let plan = match appends.tasks {
                64 => plan
                    .faster(25.0, PYTHON_9_1)
                    .faster(3.5, BARE_64)
                    .p99_within(BARE_64)
                    .compare(BARE_POOL, Measure::Speed),
                256 => plan
                    .compare(PYTHON_9_1, Measure::Speed)
                    .faster(4.0, BARE_64)
                    .compare(BARE_POOL, Measure::Speed),
                _ => plan
                    .compare(PYTHON_9_1, Measure::Speed)
                    .compare(BARE_64, Measure::Speed)
                    .compare(BARE_POOL, Measure::Speed),
            };
            self.append(bench, plan, &appends.work(bench), &[BARE_64, BARE_POOL]).await?;
        }
        Ok(())
    }

    async fn append(&self, bench: &mut Bench, plan: Plan, work: &Work, bare: &[&'static str]) -> Result<()> {
        bench
            .measure(ahead_of(plan, &self.programs.postgres), async || {
                let mut systems = self.ours(work).await?;
                for &name in bare {
                    systems.push(bare_contestant(name, work).await?);
                }
                self.join(&mut systems, work).await?;
                Ok(systems)
            })
            .await
    }

    /// One event and a position in one commit.
    async fn tracking(&self, bench: &mut Bench) -> Result<()> {
        let work = Work::Append { tasks: 1, commits: bench.scale.pick(300, 2), events: 1, size: STATE_SIZE };
        let plan = Plan::new("PostgreSQL insert with tracking, 1 task, 1 × 200 B per commit", 11)
            .within(1.25, BARE_TRACKING)
            .compare(PYTHON_9_1, Measure::Speed)
            .compare(PYTHON_9_5, Measure::Speed);
        bench
            .measure(plan, async || {
                let bare = Schema::create(BARE_TRACKING).await?;
                bare.create_table().await?;
                let mut systems = vec![
                    StoreSystem::boxed(
                        OURS,
                        tracking_recorder(OURS, NotificationOrdering::Serialized).await?,
                        &work,
                    ),
                    StoreSystem::boxed(
                        PARALLEL,
                        tracking_recorder(PARALLEL, NotificationOrdering::Parallel).await?,
                        &work,
                    ),
                    StoreSystem::boxed(BARE_TRACKING, Tracking::open(&bare).await?, &work),
                ];
                for python in &self.programs.python {
                    let schema = Schema::create(python.name()).await?.name().to_owned();
                    systems.push(python.boxed(Datastore::Postgres { schema, is_tracked: true }, &work)?);
                }
                Ok(systems)
            })
            .await
    }

    async fn contention(&self, bench: &mut Bench) -> Result<()> {
        let work = Work::Contend { aggregates: 4, tasks: 32, commits: bench.scale.pick(10, 2) };
        let plan = Plan::new("PostgreSQL insert, 32 tasks on 4 hot aggregates, retried until done", 9)
            .faster(1.3, BARE_64)
            .compare(PYTHON_9_1, Measure::Speed)
            .compare(PYTHON_9_5, Measure::Speed);
        let plan = ahead_of(plan, &self.programs.postgres).subject(PARALLEL).faster(1.3, BARE_64).p99_milliseconds(200.0);
        bench
            .measure(plan, async || {
                let mut systems = self.ours(&work).await?;
                systems.push(bare_contestant(BARE_64, &work).await?);
                self.join(&mut systems, &work).await?;
                Ok(systems)
            })
            .await
    }

    async fn processes(&self, bench: &mut Bench) -> Result<()> {
        let commits = bench.scale.pick(100, 2);
        let plan = Plan::new("PostgreSQL insert, 4 processes of 16 tasks", 11).faster(2.0, OURS);
        let system = async |name, mode: Mode| {
            let schema = Schema::create(name).await?;
            // The table is created before the processes start.
            drop(recorder(&schema, mode.ordering()).await?);
            let job = |process| {
                let (schema, first) = (schema.name().to_owned(), process << 32);
                Job::Postgres(ChildJob::Append { schema, mode, commits, first })
            };
            let events = PROCESSES as usize * TASKS_OF_PROCESS * commits;
            Processes::boxed(name, events, (0..PROCESSES).map(job))
        };
        bench
            .measure(plan, async || {
                Ok(vec![
                    system(PARALLEL, Mode::Parallel).await?,
                    system(OURS, Mode::Serialized).await?,
                ])
            })
            .await
    }

    async fn reads(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let Fixture { events, sizes, .. } = filled.fixture;
        for (index, size) in sizes.into_iter().enumerate() {
            let work = Work::Load {
                originator_id: filled.fixture.originator(index),
                events: size,
                times: bench.scale.pick(100_000, size) / size,
            };
            let rounds = if size < 100 { 7 } else { 11 };
            self.read(bench, format!("PostgreSQL load, {size} events"), rounds, filled, &work).await?;
        }
        let page = Work::Page { after: 0, events, page: 1_000 };
        self.read(bench, format!("PostgreSQL page through {events} by 1000"), 7, filled, &page).await?;
        let stream = Work::Stream { events };
        self.read(bench, format!("PostgreSQL stream {events}"), 7, filled, &stream).await
    }

    async fn read(
        &self,
        bench: &mut Bench,
        name: String,
        rounds: usize,
        filled: &Filled,
        work: &Work,
    ) -> Result<()> {
        let plan = Plan::new(name, rounds).within(1.15, BARE).faster(8.0, PYTHON_9_1).faster(4.0, PYTHON_9_5);
        self.compete_for_reads(bench, plan, filled, work).await
    }

    /// Measures calls with other work of the program between them, as outside of a benchmark.
    async fn paced(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let times = bench.scale.pick(1_000, 10);
        let load = |originator_ids| Work::PacedLoad { originator_ids, events: 10, pause: PAUSE };
        let (cold, warm) = (filled.fixture.small(times), vec![filled.fixture.originator(0); times]);
        for (name, work) in [("10 events, cold", load(cold)), ("10 events, warm", load(warm))] {
            let plan = Plan::new(format!("PostgreSQL load, {name}, {PAUSE} µs between calls"), 7)
                .within(1.15, BARE)
                .faster(1.5, PYTHON_9_1)
                .faster(1.5, PYTHON_9_5);
            self.compete_for_reads(bench, plan, filled, &work).await?;
        }
        let work = Work::PacedAppend { commits: bench.scale.pick(300, 2), pause: PAUSE };
        let plan = Plan::new(format!("PostgreSQL insert, 1 task, {PAUSE} µs between calls"), 11)
            .within(1.15, BARE)
            .faster(1.0, PYTHON_9_1)
            .compare(PYTHON_9_5, Measure::Speed);
        self.append(bench, plan, &work, &[BARE]).await
    }

    async fn compete_for_reads(
        &self,
        bench: &mut Bench,
        plan: Plan,
        filled: &Filled,
        work: &Work,
    ) -> Result<()> {
        bench
            .measure(ahead_of(plan, &self.programs.postgres), async || {
                let schema = filled.schema().await?;
                let mut systems = vec![
                    StoreSystem::boxed(OURS, recorder(schema, NotificationOrdering::Serialized).await?, work),
                    StoreSystem::boxed(PARALLEL, recorder(schema, NotificationOrdering::Parallel).await?, work),
                    StoreSystem::boxed(BARE, Connections::open(schema, 1).await?, work),
                ];
                for python in &self.programs.python {
                    systems.push(python.boxed(Datastore::postgres(schema.name()), work.reduced())?);
                }
                for peer in &self.programs.postgres {
                    systems.push(in_own_schema(peer, work.reduced()).await?);
                }
                Ok(systems)
            })
            .await
    }

    async fn memory(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let events = filled.fixture.events;
        let plan = Plan::new("PostgreSQL stream, memory", 3).memory_within(memory::BOUND);
        bench
            .measure(plan, async || {
                let schema = filled.schema().await?.name();
                let job = Job::Postgres(ChildJob::Stream { schema: schema.to_owned(), events });
                let mut systems = vec![MemoryUse::boxed(OURS, events, job)];
                for python in &self.programs.python {
                    let work = Work::Stream { events }.reduced();
                    systems.push(python.memory_use(Datastore::postgres(schema), work)?);
                }
                Ok(systems)
            })
            .await
    }

    /// Both modes, each in a schema of its own.
    async fn ours(&self, work: &Work) -> Result<Vec<Box<dyn System>>> {
        let (ours, parallel) = (Schema::create(OURS).await?, Schema::create(PARALLEL).await?);
        Ok(vec![
            StoreSystem::boxed(OURS, recorder(&ours, NotificationOrdering::Serialized).await?, work),
            StoreSystem::boxed(PARALLEL, recorder(&parallel, NotificationOrdering::Parallel).await?, work),
        ])
    }

    /// Adds the programs, each with its own schema.
    async fn join(&self, systems: &mut Vec<Box<dyn System>>, work: &Work) -> Result<()> {
        for program in self.programs.python.iter().chain(&self.programs.postgres) {
            systems.push(in_own_schema(program, work.clone()).await?);
        }
        Ok(())
    }
}

async fn in_own_schema(program: &Program, work: Work) -> Result<Box<dyn System>> {
    let schema = Schema::create(program.name()).await?;
    program.boxed(Datastore::postgres(schema.name()), work)
}

async fn bare_contestant(name: &'static str, work: &Work) -> Result<Box<dyn System>> {
    let schema = Schema::create(name).await?;
    schema.create_table().await?;
    Ok(match name {
        BARE_POOL => StoreSystem::boxed(name, Pool::open(&schema), work),
        BARE_64 => StoreSystem::boxed(name, Connections::open(&schema, CONNECTIONS).await?, work),
        _ => StoreSystem::boxed(name, Connections::open(&schema, 1).await?, work),
    })
}

async fn recorder(
    schema: &Schema,
    ordering: NotificationOrdering,
) -> Result<RecorderStore<PostgresApplicationRecorder>> {
    let datastore = schema.options().ordering(ordering).open().await?;
    Ok(RecorderStore(datastore.application_recorder("").await?))
}

/// Creates a store that records a position with each append, in the schema of this owner.
async fn tracking_recorder(
    owner: &str,
    ordering: NotificationOrdering,
) -> Result<TrackingStore<PostgresProcessRecorder>> {
    let datastore = Schema::create(owner).await?.options().ordering(ordering).open().await?;
    Ok(TrackingStore::new(datastore.process_recorder("").await?))
}

/// The table for measurements of reads, filled when the first of them needs it.
struct Filled {
    fixture: Fixture,
    schema: OnceCell<Schema>,
}

impl Filled {
    async fn schema(&self) -> Result<&Schema> {
        self.schema.get_or_try_init(|| Schema::filled(FILLED, self.fixture.stored())).await
    }
}

/// The job of a process of an experiment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum ChildJob {
    /// Streams all notifications.
    Stream { schema: String, events: usize },
    /// Commits single events from several tasks; `first` is the first aggregate of this process.
    Append { schema: String, mode: Mode, commits: usize, first: u64 },
}

/// The recorder's modes, as processes pass them to each other.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum Mode {
    Serialized,
    Parallel,
}

impl Mode {
    fn ordering(self) -> NotificationOrdering {
        match self {
            Self::Serialized => NotificationOrdering::Serialized,
            Self::Parallel => NotificationOrdering::Parallel,
        }
    }
}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        match self {
            Self::Stream { schema, events } => {
                let store = recorder(&Schema::existing(&schema)?, NotificationOrdering::Serialized).await?;
                memory::serve_stream(&store.0, events).await
            }
            Self::Append { schema, mode, commits, first } => {
                let store = Arc::new(recorder(&Schema::existing(&schema)?, mode.ordering()).await?);
                let work = Work::Append { tasks: TASKS_OF_PROCESS, commits, events: 1, size: STATE_SIZE };
                let supply = Supply::starting_at(first);
                child::serve(async || Ok(do_work(&store, &work, &supply).await?.elapsed.as_secs_f64())).await
            }
        }
    }
}

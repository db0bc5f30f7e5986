//! SQLite: our recorder beside bare rusqlite, the Python library and peers.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use es_sqlite::{SqliteApplicationRecorder, SqliteOptions, Synchronous};
use serde::{Deserialize, Serialize};

use super::{
    fixture::Fixture,
    memory,
    sizes::{Appends, ahead_of},
};
use crate::{
    bench::Bench,
    child::{self, Job},
    system::{System, StoreSystem},
    data::{Ids, STATE_SIZE, Supply},
    plan::Plan,
    report::Measure,
    systems::{
        bare_sqlite::{Blocking, Database, Direct, GroupCommit},
        processes::Processes,
        program::{Datastore, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
        recorder::RecorderStore,
        memory_use::MemoryUse,
    },
    workload::{Store, Work, do_work},
};

const OURS: &str = "es-sqlite";
const DIRECT: &str = "bare rusqlite";
const BLOCKING: &str = "bare rusqlite, spawn_blocking";
const GROUP: &str = "bare rusqlite, group commit";

/// Microseconds of other work between calls.
const PAUSE: u64 = 200;

const PROCESSES: u64 = 4;
const TASKS_OF_PROCESS: usize = 16;

pub(crate) async fn run(bench: &mut Bench, programs: &Programs, directory: &Path) -> Result<()> {
    let bare = Database::open(&directory.join("empty.db"))?;
    bench.report_durability("bare rusqlite", &bare.durability()?);
    let synchronous = Synchronous::default();
    bench.report_durability(OURS, &format!("SQLite {}, its default: {synchronous:?}", rusqlite::version()));

    let suite = Suite { programs, directory };
    suite.appends(bench).await?;
    suite.contention(bench).await?;
    suite.processes(bench).await?;
    suite.in_memory(bench).await?;
    let filled = Filled::new(directory.join("filled.db"), Fixture::new(bench.scale));
    suite.reads(bench, &filled).await?;
    suite.paced(bench, &filled).await?;
    suite.memory(bench, &filled).await
}

struct Suite<'a> {
    programs: &'a Programs,
    directory: &'a Path,
}

impl Suite<'_> {
    async fn appends(&self, bench: &mut Bench) -> Result<()> {
        for (appends, times) in Appends::ALONE.into_iter().zip([1.3, 1.2, 1.1].into_iter().cycle()) {
            let plan = appends.plan("SQLite", 15).within(times, DIRECT).faster(1.0, PYTHON_9_1);
            let plan = plan.compare(PYTHON_9_5, Measure::Speed).compare(BLOCKING, Measure::Time);
            self.append(bench, plan, appends).await?;
        }
        for appends in Appends::TOGETHER {
            let plan = appends.plan("SQLite", 11).faster(0.9, GROUP).compare(PYTHON_9_1, Measure::Speed);
            let plan = match appends.tasks {
                64 => plan.faster(12.0, PYTHON_9_5).faster(10.0, BLOCKING).compare(BLOCKING, Measure::P99),
                _ => plan.compare(PYTHON_9_5, Measure::Speed).compare(BLOCKING, Measure::Speed),
            };
            self.append(bench, plan, appends).await?;
        }
        Ok(())
    }

    async fn append(&self, bench: &mut Bench, plan: Plan, appends: Appends) -> Result<()> {
        self.compete_for_appends(bench, plan, &appends.label(), &appends.work(bench)).await
    }

    async fn compete_for_appends(
        &self,
        bench: &mut Bench,
        plan: Plan,
        label: &str,
        work: &Work,
    ) -> Result<()> {
        let file = |name: &str| self.file(name, label);
        bench
            .measure(ahead_of(plan, &self.programs.sqlite), async || {
                let mut systems = vec![
                    StoreSystem::boxed(OURS, ours(&file(OURS)).await?, work),
                    StoreSystem::boxed(BLOCKING, Blocking::open(&file(BLOCKING))?, work),
                ];
                systems.push(match work {
                    Work::Append { tasks: 2.., .. } => {
                        StoreSystem::boxed(GROUP, GroupCommit::open(&file(GROUP))?, work)
                    }
                    _ => StoreSystem::boxed(DIRECT, Direct::open(&file(DIRECT))?, work),
                });
                self.join(&mut systems, label, work)?;
                Ok(systems)
            })
            .await
    }

    async fn contention(&self, bench: &mut Bench) -> Result<()> {
        let work = Work::Contend { aggregates: 4, tasks: 32, commits: bench.scale.pick(10, 2) };
        let plan = Plan::new("SQLite insert, 32 tasks on 4 hot aggregates, retried until done", 11)
            .compare(BLOCKING, Measure::Speed)
            .compare(PYTHON_9_1, Measure::Speed)
            .compare(PYTHON_9_5, Measure::Speed);
        bench
            .measure(ahead_of(plan, &self.programs.sqlite), async || {
                let mut systems = vec![
                    StoreSystem::boxed(OURS, ours(&self.file(OURS, "hot")).await?, &work),
                    StoreSystem::boxed(BLOCKING, Blocking::open(&self.file(BLOCKING, "hot"))?, &work),
                ];
                self.join(&mut systems, "hot", &work)?;
                Ok(systems)
            })
            .await
    }

    async fn processes(&self, bench: &mut Bench) -> Result<()> {
        let commits = bench.scale.pick(20, 2);
        let plan = Plan::new("SQLite insert, 4 processes of 16 tasks", 11).compare(BLOCKING, Measure::Speed);
        let system = |name, system: ChildSystem| {
            let database = self.file(name, "processes");
            // The table is created before the processes start.
            drop(Database::open(&database)?);
            let job = |process| {
                let (database, first) = (database.clone(), process << 32);
                Job::Sqlite(ChildJob::Append { database, system, commits, first })
            };
            let events = PROCESSES as usize * TASKS_OF_PROCESS * commits;
            Processes::boxed(name, events, (0..PROCESSES).map(job))
        };
        bench
            .measure(plan, async || {
                Ok(vec![system(OURS, ChildSystem::Ours)?, system(BLOCKING, ChildSystem::Blocking)?])
            })
            .await
    }

    async fn reads(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let Fixture { events, sizes, .. } = filled.fixture;
        for (index, size) in sizes.into_iter().enumerate() {
            let work = Work::Load {
                originator_id: filled.fixture.originator(index),
                events: size,
                times: bench.scale.pick(200_000, size) / size,
            };
            self.read(bench, format!("SQLite load, {size} events"), filled, &work).await?;
        }
        let page = Work::Page { after: 0, events, page: 1_000 };
        self.read(bench, format!("SQLite page through {events} by 1000"), filled, &page).await?;
        let stream = Work::Stream { events };
        self.read(bench, format!("SQLite stream {events}"), filled, &stream).await
    }

    async fn read(&self, bench: &mut Bench, name: String, filled: &Filled, work: &Work) -> Result<()> {
        let plan = Plan::new(name, 11).within(1.2, DIRECT).compare(BLOCKING, Measure::Time);
        let plan = plan.faster(8.0, PYTHON_9_1).faster(8.0, PYTHON_9_5);
        self.compete_for_reads(bench, plan, filled, work).await
    }

    async fn compete_for_reads(
        &self,
        bench: &mut Bench,
        plan: Plan,
        filled: &Filled,
        work: &Work,
    ) -> Result<()> {
        bench
            .measure(ahead_of(plan, &self.programs.sqlite), async || {
                let path = filled.path()?;
                let mut systems = vec![
                    StoreSystem::boxed(OURS, ours(path).await?, work),
                    StoreSystem::boxed(DIRECT, Direct::open(path)?, work),
                    StoreSystem::boxed(BLOCKING, Blocking::open(path)?, work),
                ];
                for python in &self.programs.python {
                    systems.push(python.boxed(Datastore::sqlite(path), work.reduced())?);
                }
                for peer in &self.programs.sqlite {
                    let path = self.file(peer.name(), "reads");
                    systems.push(peer.boxed(Datastore::sqlite(&path), work.reduced())?);
                }
                Ok(systems)
            })
            .await
    }

    /// Measures a database in memory, which one connection uses exclusively.
    async fn in_memory(&self, bench: &mut Bench) -> Result<()> {
        let load = Work::Load {
            originator_id: Ids::Random.stored(0),
            events: 10,
            times: bench.scale.pick(10_000, 10),
        };
        let insert =
            Work::Append { tasks: 1, commits: bench.scale.pick(2_000, 2), events: 1, size: STATE_SIZE };
        for (name, work) in [("insert, 1 task, 1 × 200 B per commit", insert), ("load, 10 events", load)] {
            let plan = Plan::new(format!("SQLite :memory: {name}"), 15).compare(DIRECT, Measure::Time);
            let plan = plan.faster(1.5, PYTHON_9_1).faster(1.5, PYTHON_9_5);
            bench
                .measure(plan, async || {
                    let path = Path::new(":memory:");
                    let mut systems = vec![
                        StoreSystem::boxed(OURS, ours(path).await?, &work),
                        StoreSystem::boxed(DIRECT, Direct::open(path)?, &work),
                    ];
                    for python in &self.programs.python {
                        systems.push(python.boxed(Datastore::sqlite(path), work.reduced())?);
                    }
                    Ok(systems)
                })
                .await?;
        }
        Ok(())
    }

    /// Measures calls with other work of the program between them, as outside of a benchmark.
    async fn paced(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let times = bench.scale.pick(1_000, 10);
        let load = |originator_ids| Work::PacedLoad { originator_ids, events: 10, pause: PAUSE };
        let cold = filled.fixture.small(times);
        let warm = vec![filled.fixture.originator(0); times];
        for (name, work) in [("10 events, cold", load(cold)), ("10 events, warm", load(warm))] {
            let plan = Plan::new(format!("SQLite load, {name}, {PAUSE} µs between calls"), 11);
            let plan = plan.compare(DIRECT, Measure::Time).compare(BLOCKING, Measure::Time);
            let plan = plan.faster(1.5, PYTHON_9_1).faster(1.5, PYTHON_9_5);
            self.compete_for_reads(bench, plan, filled, &work).await?;
        }
        let work = Work::PacedAppend { commits: bench.scale.pick(300, 2), pause: PAUSE };
        let plan = Plan::new(format!("SQLite insert, 1 task, {PAUSE} µs between calls"), 15)
            .within(1.3, DIRECT)
            .compare(BLOCKING, Measure::Time)
            .faster(1.0, PYTHON_9_1)
            .compare(PYTHON_9_5, Measure::Speed);
        self.compete_for_appends(bench, plan, "paced", &work).await
    }

    async fn memory(&self, bench: &mut Bench, filled: &Filled) -> Result<()> {
        let events = filled.fixture.events;
        let plan = Plan::new("SQLite stream, memory", 3).memory_within(memory::BOUND);
        bench
            .measure(plan, async || {
                let database = filled.path()?;
                let job = ChildJob::Stream { database: database.to_owned(), events };
                let mut systems = vec![MemoryUse::boxed(OURS, events, Job::Sqlite(job))];
                for python in &self.programs.python {
                    let work = Work::Stream { events }.reduced();
                    systems.push(python.memory_use(Datastore::sqlite(database), work)?);
                }
                Ok(systems)
            })
            .await
    }

    /// Adds the programs, each with its own database file.
    fn join(&self, systems: &mut Vec<Box<dyn System>>, label: &str, work: &Work) -> Result<()> {
        for program in self.programs.python.iter().chain(&self.programs.sqlite) {
            let datastore = Datastore::sqlite(&self.file(program.name(), label));
            systems.push(program.boxed(datastore, work)?);
        }
        Ok(())
    }

    fn file(&self, name: &str, label: &str) -> PathBuf {
        self.directory.join(format!("{name} {label}.db"))
    }
}

/// The database for measurements of reads, filled when the first of them needs it.
struct Filled {
    path: PathBuf,
    fixture: Fixture,
    is_filled: Cell<bool>,
}

impl Filled {
    fn new(path: PathBuf, fixture: Fixture) -> Self {
        Self { path, fixture, is_filled: Cell::new(false) }
    }

    fn path(&self) -> Result<&Path> {
        if !self.is_filled.replace(true) {
            Database::open(&self.path)?.fill(self.fixture.stored())?;
        }
        Ok(&self.path)
    }
}

async fn ours(path: &Path) -> Result<RecorderStore<SqliteApplicationRecorder>> {
    let datastore = SqliteOptions::new(path).open().await?;
    Ok(RecorderStore(datastore.application_recorder().await?))
}

/// The job of a process of an experiment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum ChildJob {
    /// Streams all notifications.
    Stream { database: PathBuf, events: usize },
    /// Commits single events from several tasks; `first` is the first aggregate of this process.
    Append { database: PathBuf, system: ChildSystem, commits: usize, first: u64 },
}

/// Systems that are measured in several processes.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum ChildSystem {
    Ours,
    Blocking,
}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        match self {
            Self::Stream { database, events } => {
                memory::serve_stream(&ours(&database).await?.0, events).await
            }
            Self::Append { database, system: ChildSystem::Ours, commits, first } => {
                serve_appends(ours(&database).await?, commits, first).await
            }
            Self::Append { database, system: ChildSystem::Blocking, commits, first } => {
                serve_appends(Blocking::open(&database)?, commits, first).await
            }
        }
    }
}

async fn serve_appends(store: impl Store, commits: usize, first: u64) -> Result<()> {
    let (store, supply) = (Arc::new(store), Supply::starting_at(first));
    let work = Work::Append { tasks: TASKS_OF_PROCESS, commits, events: 1, size: STATE_SIZE };
    child::serve(async || Ok(do_work(&store, &work, &supply).await?.elapsed.as_secs_f64())).await
}

//! The experiments that the suites of SQLite and PostgreSQL share. A suite chooses systems, rounds and
//! targets.

use anyhow::{Result, bail};
use es_core::StoredEvent;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::{fixture::Fixture, postgres, sqlite};
use crate::{
    bench::Bench,
    child::{self, Job},
    data::{STATE_SIZE, Supply},
    machine,
    plan::Plan,
    system::System,
    systems::{
        memory_use::MemoryUse,
        processes::Processes,
        program::{Datastore, Program},
    },
    workload::Work,
};

/// Microseconds of other work between calls.
const PAUSE: u64 = 200;
/// The limit of a stream in MiB above idle, for any length.
const MAX_STREAM_MEMORY: f64 = 20.0;
const PROCESSES: u64 = 4;
const TASKS_OF_PROCESS: usize = 16;

/// A kind of datastore.
pub(crate) trait Backend {
    /// The beginning of the names of the experiments.
    const NAME: &'static str;
    /// Our recorder with its defaults.
    const OURS: &'static str;
    /// Events of the repeated loads of an aggregate, in a full run.
    const LOADED: usize;

    /// Returns the bare system of the growth experiments, and its name there.
    fn bare(is_concurrent: bool) -> (&'static str, &'static str);

    /// Creates an empty datastore for a system.
    async fn create(&self, system: &str) -> Result<Datastore>;

    /// Creates a datastore that has these events.
    async fn fill(&self, name: &str, events: impl Iterator<Item = StoredEvent>) -> Result<Datastore>;

    /// Deletes all datastores.
    async fn clear(&self) -> Result<()>;
}

/// Opens a system of this process on a datastore.
pub(crate) async fn open(
    system: &str,
    name: &str,
    datastore: &Datastore,
    work: &Work,
    supply: Supply,
) -> Result<Box<dyn System>> {
    match datastore {
        Datastore::Sqlite { path } => sqlite::open(system, name, path, work, supply).await,
        Datastore::Postgres { schema, is_tracked } => {
            postgres::open(system, name, schema, *is_tracked, work, supply).await
        }
        other => bail!("{system} cannot open {other:?}"),
    }
}

/// A backend, and the programs that are measured on it.
pub(crate) struct Suite<'a, B> {
    pub(crate) backend: B,
    /// The Python library, on the tables that our recorders use.
    pub(crate) python: &'a [Program],
    /// Other Rust libraries, with tables of their own.
    pub(crate) peers: &'a [Program],
    fixture: Fixture,
    /// The datastore for measurements of reads, filled by the first of them.
    filled: OnceCell<Datastore>,
}

impl<'a, B: Backend> Suite<'a, B> {
    pub(crate) fn new(bench: &Bench, backend: B, python: &'a [Program], peers: &'a [Program]) -> Self {
        Self { backend, python, peers, fixture: Fixture::new(bench.scale), filled: OnceCell::new() }
    }

    /// Measures work on an empty datastore for each system.
    pub(crate) async fn on_empty(
        &self,
        bench: &mut Bench,
        plan: Plan,
        systems: &[&'static str],
        work: &Work,
    ) -> Result<()> {
        bench
            .measure(plan.ahead_of(self.peers), async || {
                let mut opened = Vec::new();
                for system in systems {
                    let datastore = self.backend.create(system).await?;
                    opened.push(open(system, system, &datastore, work, Supply::default()).await?);
                }
                for program in self.python.iter().chain(self.peers) {
                    opened.push(program.boxed(self.backend.create(program.name()).await?, work.reduced())?);
                }
                Ok(opened)
            })
            .await
    }

    /// Measures work on the filled datastore. Peers store the events that they read in their own datastores.
    async fn on_filled(
        &self,
        bench: &mut Bench,
        plan: Plan,
        systems: &[&'static str],
        work: &Work,
    ) -> Result<()> {
        bench
            .measure(plan.ahead_of(self.peers), async || {
                let filled = self.filled().await?;
                let mut opened = Vec::new();
                for system in systems {
                    opened.push(open(system, system, filled, work, Supply::default()).await?);
                }
                for python in self.python {
                    opened.push(python.boxed(filled.clone(), work.reduced())?);
                }
                for peer in self.peers {
                    opened.push(peer.boxed(self.backend.create(peer.name()).await?, work.reduced())?);
                }
                Ok(opened)
            })
            .await
    }

    async fn filled(&self) -> Result<&Datastore> {
        self.filled.get_or_try_init(|| self.backend.fill("filled", self.fixture.stored())).await
    }

    pub(crate) async fn contention(
        &self,
        bench: &mut Bench,
        rounds: usize,
        systems: &[&'static str],
        targets: impl FnOnce(Plan) -> Plan,
    ) -> Result<()> {
        let work = Work::Contend { aggregates: 4, tasks: 32, commits: bench.scale.pick(10, 2) };
        let name = format!("{} insert, 32 tasks on 4 hot aggregates, retried until done", B::NAME);
        self.on_empty(bench, targets(Plan::new(name, rounds)), systems, &work).await
    }

    /// Measures processes that store in one datastore at the same time.
    pub(crate) async fn processes(
        &self,
        bench: &mut Bench,
        commits: usize,
        systems: &[&'static str],
        targets: impl FnOnce(Plan) -> Plan,
    ) -> Result<()> {
        let work = Work::Append { tasks: TASKS_OF_PROCESS, commits, events: 1, size: STATE_SIZE };
        let events = PROCESSES as usize * TASKS_OF_PROCESS * commits;
        let plan = targets(Plan::new(format!("{} insert, 4 processes of 16 tasks", B::NAME), 11));
        bench
            .measure(plan, async || {
                let mut opened = Vec::new();
                for system in systems {
                    let datastore = self.backend.create(system).await?;
                    // The table is created before the processes start.
                    drop(open(system, system, &datastore, &work, Supply::default()).await?);
                    let jobs = (0..PROCESSES).map(|process| {
                        Job::Store(ChildJob {
                            system: (*system).into(),
                            datastore: datastore.clone(),
                            work: work.clone(),
                            first: process << 32,
                        })
                    });
                    opened.push(Processes::boxed(*system, events, jobs)?);
                }
                Ok(opened)
            })
            .await
    }

    pub(crate) async fn reads(
        &self,
        bench: &mut Bench,
        systems: &[&'static str],
        plan: impl Fn(String, &Work) -> Plan,
    ) -> Result<()> {
        let Fixture { events, sizes, .. } = self.fixture;
        let load = |(index, size): (usize, usize)| {
            let times = bench.scale.pick(B::LOADED, size) / size;
            let originator_id = self.fixture.originator(index);
            (format!("load, {size} events"), Work::Load { originator_id, events: size, times })
        };
        let mut works: Vec<_> = sizes.into_iter().enumerate().map(load).collect();
        works.push((format!("page through {events} by 1000"), Work::Page { after: 0, events, page: 1_000 }));
        works.push((format!("stream {events}"), Work::Stream { events }));
        for (name, work) in works {
            let plan = plan(format!("{} {name}", B::NAME), &work);
            self.on_filled(bench, plan, systems, &work).await?;
        }
        Ok(())
    }

    /// Measures loads with other work of the program between them, as outside of a benchmark.
    pub(crate) async fn paced_loads(
        &self,
        bench: &mut Bench,
        systems: &[&'static str],
        plan: impl Fn(String) -> Plan,
    ) -> Result<()> {
        let times = bench.scale.pick(1_000, 10);
        let cold = self.fixture.small(times);
        let warm = vec![self.fixture.originator(0); times];
        for (name, originator_ids) in [("cold", cold), ("warm", warm)] {
            let work = Work::PacedLoad { originator_ids, events: 10, pause: PAUSE };
            let name = format!("{} load, 10 events, {name}, {PAUSE} µs between calls", B::NAME);
            self.on_filled(bench, plan(name), systems, &work).await?;
        }
        Ok(())
    }

    /// Measures appends with other work of the program between them.
    pub(crate) async fn paced_append(
        &self,
        bench: &mut Bench,
        rounds: usize,
        systems: &[&'static str],
        targets: impl FnOnce(Plan) -> Plan,
    ) -> Result<()> {
        let work = Work::PacedAppend { commits: bench.scale.pick(300, 2), pause: PAUSE };
        let name = format!("{} insert, 1 task, {PAUSE} µs between calls", B::NAME);
        self.on_empty(bench, targets(Plan::new(name, rounds)), systems, &work).await
    }

    /// Measures the memory use of a stream of all notifications.
    pub(crate) async fn stream_memory(&self, bench: &mut Bench) -> Result<()> {
        let events = self.fixture.events;
        let plan = Plan::new(format!("{} stream, memory", B::NAME), 3).memory_within(MAX_STREAM_MEMORY);
        bench
            .measure(plan, async || {
                let (datastore, work) = (self.filled().await?.clone(), Work::Stream { events });
                let reduced = work.reduced();
                let ours = ChildJob { system: B::OURS.into(), datastore: datastore.clone(), work, first: 0 };
                let mut opened = vec![MemoryUse::boxed(B::OURS, events, Job::Store(ours))];
                for python in self.python {
                    opened.push(python.memory_use(datastore.clone(), &reduced)?);
                }
                Ok(opened)
            })
            .await
    }
}

/// The job of a child process: rounds of work with a system.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ChildJob {
    system: String,
    datastore: Datastore,
    work: Work,
    /// The first aggregate of this process.
    first: u64,
}

impl ChildJob {
    /// Reports the MiB above idle of a stream, and the seconds of any other work.
    pub(crate) async fn serve(self) -> Result<()> {
        let Self { system, datastore, work, first } = self;
        let mut system = open(&system, &system, &datastore, &work, Supply::starting_at(first)).await?;
        child::serve(async || match work {
            Work::Stream { .. } => {
                let idle = machine::resident()?;
                system.round().await?;
                machine::above(idle)
            }
            _ => Ok(system.round().await?.elapsed.as_secs_f64()),
        })
        .await
    }
}

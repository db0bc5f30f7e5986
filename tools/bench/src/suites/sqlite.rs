//! SQLite: our recorder compared with bare rusqlite, the Python library and peers.

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use es_core::StoredEvent;
use es_sqlite::{SqliteOptions, Synchronous};

use super::{
    backend::{Backend, Suite},
    sizes::Appends,
};
use crate::{
    bench::Bench,
    data::{Ids, STATE_SIZE, Supply},
    plan::Plan,
    report::Measure,
    system::{StoreSystem, System},
    systems::{
        bare_sqlite::{Database, Driver, GroupCommit},
        program::{Datastore, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
        recorder::RecorderStore,
    },
    workload::Work,
};

const OURS: &str = "es-sqlite";
const DIRECT: &str = "bare rusqlite";
const BLOCKING: &str = "bare rusqlite, spawn_blocking";
const GROUP: &str = "bare rusqlite, group commit";

pub(crate) async fn run(bench: &mut Bench, programs: &Programs, directory: &Path) -> Result<()> {
    let bare = Database::open(&directory.join("empty.db"))?;
    bench.report_durability("bare rusqlite", &bare.durability()?);
    let synchronous = Synchronous::default();
    bench.report_durability(OURS, &format!("SQLite {}, its default: {synchronous:?}", rusqlite::version()));

    let suite = Suite::new(bench, Files::new(directory)?, &programs.python, &programs.sqlite);
    appends(&suite, bench).await?;
    let hot = |plan: Plan| {
        let plan = plan.compare(BLOCKING, Measure::Speed);
        plan.compare(PYTHON_9_1, Measure::Speed).compare(PYTHON_9_5, Measure::Speed)
    };
    suite.contention(bench, 11, &[OURS, BLOCKING], hot).await?;
    let commits = bench.scale.pick(20, 2);
    let processes = |plan: Plan| plan.compare(BLOCKING, Measure::Speed);
    suite.processes(bench, commits, &[OURS, BLOCKING], processes).await?;
    in_memory(bench, programs).await?;
    let readers = [OURS, DIRECT, BLOCKING];
    let reads = |name, _: &Work| {
        let plan = Plan::new(name, 11).within(1.2, DIRECT).compare(BLOCKING, Measure::Time);
        plan.faster(8.0, PYTHON_9_1).faster(8.0, PYTHON_9_5)
    };
    suite.reads(bench, &readers, reads).await?;
    let paced = |name| {
        let plan = Plan::new(name, 11).compare(DIRECT, Measure::Time).compare(BLOCKING, Measure::Time);
        plan.faster(1.5, PYTHON_9_1).faster(1.5, PYTHON_9_5)
    };
    suite.paced_loads(bench, &readers, paced).await?;
    let paced = |plan: Plan| {
        let plan = plan.within(1.3, DIRECT).compare(BLOCKING, Measure::Time);
        plan.faster(1.0, PYTHON_9_1).compare(PYTHON_9_5, Measure::Speed)
    };
    suite.paced_append(bench, 15, &[OURS, BLOCKING, DIRECT], paced).await?;
    suite.stream_memory(bench).await
}

async fn appends(suite: &Suite<'_, Files>, bench: &mut Bench) -> Result<()> {
    for (appends, times) in Appends::ALONE.into_iter().zip([1.3, 1.2, 1.1].into_iter().cycle()) {
        let plan = appends.plan("SQLite", 15).within(times, DIRECT).faster(1.0, PYTHON_9_1);
        let plan = plan.compare(PYTHON_9_5, Measure::Speed).compare(BLOCKING, Measure::Time);
        suite.on_empty(bench, plan, &[OURS, BLOCKING, DIRECT], &appends.work(bench)).await?;
    }
    for appends in Appends::TOGETHER {
        let plan = appends.plan("SQLite", 11).faster(0.9, GROUP).compare(PYTHON_9_1, Measure::Speed);
        let plan = match appends.tasks {
            64 => plan.faster(12.0, PYTHON_9_5).faster(10.0, BLOCKING).compare(BLOCKING, Measure::P99),
            _ => plan.compare(PYTHON_9_5, Measure::Speed).compare(BLOCKING, Measure::Speed),
        };
        suite.on_empty(bench, plan, &[OURS, BLOCKING, GROUP], &appends.work(bench)).await?;
    }
    Ok(())
}

/// Measures a database in memory, which one connection uses exclusively.
async fn in_memory(bench: &mut Bench, programs: &Programs) -> Result<()> {
    let suite = Suite::new(bench, Files::in_memory(), &programs.python, &[]);
    let load =
        Work::Load { originator_id: Ids::Random.stored(0), events: 10, times: bench.scale.pick(10_000, 10) };
    let insert = Work::Append { tasks: 1, commits: bench.scale.pick(2_000, 2), events: 1, size: STATE_SIZE };
    for (name, work) in [("insert, 1 task, 1 × 200 B per commit", insert), ("load, 10 events", load)] {
        let plan = Plan::new(format!("SQLite :memory: {name}"), 15).compare(DIRECT, Measure::Time);
        let plan = plan.faster(1.5, PYTHON_9_1).faster(1.5, PYTHON_9_5);
        suite.on_empty(bench, plan, &[OURS, DIRECT], &work).await?;
    }
    Ok(())
}

/// Opens a system on a database file.
pub(super) async fn open(
    system: &str,
    name: &str,
    path: &Path,
    work: &Work,
    supply: Supply,
) -> Result<Box<dyn System>> {
    Ok(match system {
        OURS => {
            let recorder = SqliteOptions::new(path).open().await?.application_recorder().await?;
            StoreSystem::supplied(name, RecorderStore(recorder), work, supply)
        }
        DIRECT => StoreSystem::supplied(name, Driver::direct(path)?, work, supply),
        BLOCKING => StoreSystem::supplied(name, Driver::blocking(path)?, work, supply),
        GROUP => StoreSystem::supplied(name, GroupCommit::open(path)?, work, supply),
        _ => bail!("unknown system {system:?}"),
    })
}

/// Database files in a directory, or databases in memory.
pub(crate) struct Files {
    directory: Option<PathBuf>,
    created: Cell<usize>,
}

impl Files {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self { directory: Some(directory.to_owned()), created: Cell::new(0) })
    }

    fn in_memory() -> Self {
        Self { directory: None, created: Cell::new(0) }
    }
}

impl Backend for Files {
    const NAME: &'static str = "SQLite";
    const OURS: &'static str = OURS;
    const LOADED: usize = 200_000;

    fn bare(is_concurrent: bool) -> (&'static str, &'static str) {
        if is_concurrent { (GROUP, GROUP) } else { (DIRECT, DIRECT) }
    }

    async fn create(&self, system: &str) -> Result<Datastore> {
        let number = self.created.replace(self.created.get() + 1);
        let path = match &self.directory {
            Some(directory) => directory.join(format!("{system} {number}.db")),
            None => ":memory:".into(),
        };
        Ok(Datastore::Sqlite { path })
    }

    async fn fill(&self, name: &str, events: impl Iterator<Item = StoredEvent>) -> Result<Datastore> {
        let datastore = self.create(name).await?;
        if let Datastore::Sqlite { path } = &datastore {
            Database::open(path)?.fill(events)?;
        }
        Ok(datastore)
    }

    async fn clear(&self) -> Result<()> {
        if let Some(directory) = &self.directory {
            fs::remove_dir_all(directory)?;
            fs::create_dir(directory)?;
        }
        Ok(())
    }
}

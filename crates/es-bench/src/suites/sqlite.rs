//! SQLite: our recorder beside bare rusqlite.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Result;
use es_sqlite::{SqliteApplicationRecorder, SqliteOptions, Synchronous};
use serde::{Deserialize, Serialize};

use super::fixture::Fixture;
use super::memory;
use crate::bench::{Bench, Plan};
use crate::child::Job;
use crate::report::Measure;
use crate::systems::bare_sqlite::{Blocking, Database, Direct, GroupCommit};
use crate::systems::recorder::RecorderStore;
use crate::workload::{Work, Working};

const OURS: &str = "es-sqlite";
const DIRECT: &str = "bare rusqlite";
const BLOCKING: &str = "bare rusqlite, spawn_blocking";
const GROUP: &str = "bare rusqlite, group commit";

pub(crate) async fn run(bench: &mut Bench, directory: &Path) -> Result<()> {
    let bare = Database::open(&directory.join("empty.db"))?;
    bench.has_durability("bare rusqlite", bare.durability()?);
    let synchronous = Synchronous::default();
    bench.has_durability(OURS, format!("SQLite {}, its default: {synchronous:?}", rusqlite::version()));

    appends(bench, directory).await?;
    group_commits(bench, directory).await?;
    let filled = Filled::new(directory.join("filled.db"), Fixture::new(bench.scale));
    reads(bench, &filled).await?;
    stream(bench, &filled).await
}

async fn appends(bench: &mut Bench, directory: &Path) -> Result<()> {
    for (events, commits, times) in [(1, 300, 1.3), (10, 200, 1.2), (1_000, 20, 1.1)] {
        let work = Work::Append { tasks: 1, commits: bench.scale.pick(commits, 2), events };
        let plan = Plan::new(format!("SQLite insert, 1 task, {events} per commit"), 15)
            .within(times, DIRECT)
            .beside(BLOCKING, Measure::Time);
        let file = |name: &str| directory.join(format!("{name}-{events}.db"));
        bench
            .compete(plan, async || {
                Ok(vec![
                    Working::boxed(OURS, ours(&file("ours")).await?, &work),
                    Working::boxed(DIRECT, Direct::open(&file("direct"))?, &work),
                    Working::boxed(BLOCKING, Blocking::open(&file("blocking"))?, &work),
                ])
            })
            .await?;
    }
    Ok(())
}

async fn group_commits(bench: &mut Bench, directory: &Path) -> Result<()> {
    let work = Work::Append { tasks: 64, commits: bench.scale.pick(50, 2), events: 1 };
    let plan = Plan::new("SQLite insert, 64 tasks, 1 per commit", 15)
        .faster(10.0, BLOCKING)
        .faster(0.9, GROUP)
        .beside(BLOCKING, Measure::P99);
    bench
        .compete(plan, async || {
            Ok(vec![
                Working::boxed(OURS, ours(&directory.join("ours-64.db")).await?, &work),
                Working::boxed(BLOCKING, Blocking::open(&directory.join("blocking-64.db"))?, &work),
                Working::boxed(GROUP, GroupCommit::open(&directory.join("group-64.db"))?, &work),
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
            times: bench.scale.pick(200_000, size) / size,
        };
        read(bench, Plan::new(format!("SQLite load, {size} events"), 15), filled, &work).await?;
    }
    let work = Work::Page { events, page: 1_000 };
    read(bench, Plan::new(format!("SQLite page through {events} by 1000"), 9), filled, &work).await
}

async fn read(bench: &mut Bench, plan: Plan, filled: &Filled, work: &Work) -> Result<()> {
    let plan = plan.within(1.2, DIRECT).beside(BLOCKING, Measure::Time);
    bench
        .compete(plan, async || {
            let filled = filled.path()?;
            Ok(vec![
                Working::boxed(OURS, ours(filled).await?, work),
                Working::boxed(DIRECT, Direct::open(filled)?, work),
                Working::boxed(BLOCKING, Blocking::open(filled)?, work),
            ])
        })
        .await
}

async fn stream(bench: &mut Bench, filled: &Filled) -> Result<()> {
    let weigh = async || {
        let (database, events) = (filled.path()?.to_owned(), filled.fixture.events);
        memory::weigh(&Job::Sqlite(ChildJob { database, events }))
    };
    bench.weigh("SQLite stream, memory", OURS, memory::BOUND, weigh).await
}

/// The database that reads find, filled when the first of them needs it.
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

/// Streams all notifications of a database.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ChildJob {
    database: PathBuf,
    events: usize,
}

impl ChildJob {
    pub(crate) async fn serve(self) -> Result<()> {
        memory::serve_stream(&ours(&self.database).await?.0, self.events).await
    }
}

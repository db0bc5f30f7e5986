//! Growth of cost: the same appends and loads at no, a million and ten million stored events, in turns.

use std::{fs, path::Path};

use anyhow::Result;
use es_postgres::PostgresApplicationRecorder;
use es_sqlite::{SqliteApplicationRecorder, SqliteOptions};

use super::fixture::Fixture;
use crate::{
    bench::Bench,
    system::{System, StoreSystem},
    data::{Ids, STATE_SIZE, Supply},
    plan::Plan,
    report::{Measure, ChartPoint},
    systems::{
        bare_postgres::Connections,
        bare_sqlite::{Database, Direct, GroupCommit},
        postgres_schema::Schema,
        recorder::RecorderStore,
    },
    workload::{Store, Work},
};

const ROUNDS: usize = 11;
const WORKLOADS: usize = 6;
const AXIS: &str = "events stored before";

/// An amount of stored events, with its measurements.
struct Amount {
    stored: usize,
    fixture: Fixture,
}

impl Amount {
    fn all(bench: &Bench, ids: Ids) -> Vec<Self> {
        let amounts = bench.scale.pick([10_000_000, 1_000_000, 0], [20_000, 2_000, 0]);
        let amount = |stored| Self { stored, fixture: Fixture::around(stored, ids) };
        amounts.into_iter().filter(|stored| *stored <= bench.max_stored).map(amount).collect()
    }
}

/// Returns the workloads, with the events of the fixture to read. Pages are read at the end of the log.
fn workloads(bench: &Bench, fixture: Fixture) -> [(&'static str, Work); WORKLOADS] {
    let append = |tasks, commits, events| Work::Append {
        tasks,
        commits: bench.scale.pick(commits, 2),
        events,
        size: STATE_SIZE,
    };
    let load = |index, events, times| Work::Load {
        originator_id: fixture.originator(index),
        events,
        times: bench.scale.pick(times, 1),
    };
    let [small, large, _] = fixture.sizes;
    let read = 10_000;
    let page = Work::Page { after: (fixture.events - read) as i64, events: read, page: 1_000 };
    [
        ("insert, 1 task, 1 per commit", append(1, 300, 1)),
        ("insert, 1 task, 1000 per commit", append(1, 5, 1_000)),
        ("insert, 64 tasks, 1 per commit", append(64, 20, 1)),
        ("load, 10 events", load(0, small, 1_000)),
        ("load, 1000 events", load(1, large, 50)),
        ("page by 1000 at the end", page),
    ]
}

pub(crate) async fn run_sqlite(bench: &mut Bench, directory: &Path) -> Result<()> {
    for ids in [Ids::Random, Ids::TimeOrdered] {
        run_sqlite_with(ids, bench, directory).await?;
    }
    Ok(())
}

async fn run_sqlite_with(ids: Ids, bench: &mut Bench, directory: &Path) -> Result<()> {
    const OURS: &str = "es-sqlite";
    const BARE: &str = "bare rusqlite";
    const GROUP: &str = "bare rusqlite, group commit";
    let datastore = datastore("SQLite", ids);
    if !selects(bench, &datastore) {
        return Ok(());
    }
    let amounts = Amount::all(bench, ids);
    let directory = directory.join(format!("growth-{ids:?}"));
    fs::create_dir(&directory)?;
    let file = |stored| directory.join(format!("{stored}.db"));
    for amount in &amounts {
        Database::open(&file(amount.stored))?.fill(amount.fixture.stored())?;
    }
    let mut supplies = Supplies { ids, systems: 0 };
    for number in 0..WORKLOADS {
        let works: Vec<_> =
            amounts.iter().map(|amount| workloads(bench, amount.fixture)[number].clone()).collect();
        let bare = if is_concurrent(works[0].0) { GROUP } else { BARE };
        let plan = plan(ids, &datastore, works[0].0, OURS, bare, &amounts);
        bench
            .measure(plan, async || {
                let mut systems: Vec<Box<dyn System>> = Vec::new();
                for (amount, (what, work)) in amounts.iter().zip(&works) {
                    let path = file(amount.stored);
                    systems.push(supplies.join(name(OURS, amount.stored), sqlite(&path).await?, work));
                    let bare = name(bare, amount.stored);
                    systems.push(match is_concurrent(what) {
                        true => supplies.join(bare, GroupCommit::open(&path)?, work),
                        false => supplies.join(bare, Direct::open(&path)?, work),
                    });
                }
                Ok(systems)
            })
            .await?;
    }
    // The next experiments need the space.
    Ok(fs::remove_dir_all(directory)?)
}

pub(crate) async fn run_postgres(bench: &mut Bench) -> Result<()> {
    for ids in [Ids::Random, Ids::TimeOrdered] {
        run_postgres_with(ids, bench).await?;
    }
    Ok(())
}

async fn run_postgres_with(ids: Ids, bench: &mut Bench) -> Result<()> {
    const OURS: &str = "es-postgres";
    const BARE: &str = "bare sqlx";
    let datastore = datastore("PostgreSQL", ids);
    if !selects(bench, &datastore) {
        return Ok(());
    }
    let amounts = Amount::all(bench, ids);
    let mut schemas = Vec::new();
    for amount in &amounts {
        let name = format!("growth {ids:?} {}", amount.stored);
        schemas.push(Schema::filled(&name, amount.fixture.stored()).await?);
    }
    let mut supplies = Supplies { ids, systems: 0 };
    for number in 0..WORKLOADS {
        let works: Vec<_> =
            amounts.iter().map(|amount| workloads(bench, amount.fixture)[number].clone()).collect();
        let plan = plan(ids, &datastore, works[0].0, OURS, BARE, &amounts);
        let connections = if is_concurrent(works[0].0) { 64 } else { 1 };
        bench
            .measure(plan, async || {
                let mut systems: Vec<Box<dyn System>> = Vec::new();
                for ((amount, schema), (_, work)) in amounts.iter().zip(&schemas).zip(&works) {
                    let bare = Connections::open(schema, connections).await?;
                    systems.push(supplies.join(name(OURS, amount.stored), postgres(schema).await?, work));
                    systems.push(supplies.join(name(BARE, amount.stored), bare, work));
                }
                Ok(systems)
            })
            .await?;
    }
    Schema::drop_all().await
}

fn datastore(name: &str, ids: Ids) -> String {
    match ids {
        Ids::Random => format!("{name} growth"),
        Ids::TimeOrdered => format!("{name} growth with time-ordered ids"),
    }
}

/// True if an experiment is selected. Filling takes minutes, so it is skipped otherwise.
fn selects(bench: &Bench, datastore: &str) -> bool {
    let workloads = workloads(bench, Fixture::around(0, Ids::Random));
    workloads.iter().any(|(what, _)| bench.selects(&chart(datastore, what)))
}

/// The limit of the ratio between the largest datastore and the empty one.
fn slower(ids: Ids) -> f64 {
    match ids {
        Ids::Random => 1.3,
        Ids::TimeOrdered => 1.2,
    }
}

fn chart(datastore: &str, what: &str) -> String {
    format!("{datastore}: {what}")
}

fn is_concurrent(workload: &str) -> bool {
    workload.contains("64 tasks")
}

/// Supplies for systems and experiments that store in one datastore in turns: each has its own aggregates.
struct Supplies {
    ids: Ids,
    systems: u64,
}

impl Supplies {
    fn join<S: Store>(&mut self, name: String, store: S, work: &Work) -> Box<dyn System> {
        self.systems += 1;
        let supply = Supply::starting_at(self.systems << 32).with_ids(self.ids);
        StoreSystem::supplied(name, store, work, supply)
    }
}

/// Plans a workload. The largest amount comes first: it is compared with the empty datastore.
fn plan(
    ids: Ids,
    datastore: &str,
    what: &str,
    ours: &'static str,
    bare: &'static str,
    amounts: &[Amount],
) -> Plan {
    let chart = chart(datastore, what);
    let largest = amounts.first().map_or(0, |amount| amount.stored);
    let points: Vec<_> = (amounts.iter())
        .flat_map(|amount| [ours, bare].map(|system| (name(system, amount.stored), system, amount.stored)))
        .map(|(name, series, stored)| {
            let point =
                ChartPoint { chart: chart.clone(), axis: AXIS.into(), series: series.into(), x: stored as f64 };
            (name, point)
        })
        .collect();
    Plan::new(chart, ROUNDS)
        .within(slower(ids), &name(ours, 0))
        .compare(&name(bare, largest), Measure::Time)
        .chart_points(move |system| points.iter().find(|(name, _)| name == system).map(|(_, point)| point.clone()))
}

fn name(system: &str, stored: usize) -> String {
    match stored {
        0 => format!("{system}, none stored"),
        millions if millions % 1_000_000 == 0 => {
            format!("{system}, {} million stored", stored / 1_000_000)
        }
        _ => format!("{system}, {stored} stored"),
    }
}

async fn sqlite(path: &Path) -> Result<RecorderStore<SqliteApplicationRecorder>> {
    let datastore = SqliteOptions::new(path).open().await?;
    Ok(RecorderStore(datastore.application_recorder().await?))
}

async fn postgres(schema: &Schema) -> Result<RecorderStore<PostgresApplicationRecorder>> {
    let datastore = schema.options().open().await?;
    Ok(RecorderStore(datastore.application_recorder("").await?))
}

//! Growth of cost: the same appends and loads at no, a million and ten million stored events, in turns.

use anyhow::{Context, Result};

use super::{
    backend::{Backend, open},
    fixture::Fixture,
};
use crate::{
    bench::Bench,
    data::{Ids, STATE_SIZE, Supply},
    plan::Plan,
    report::{ChartPoint, Measure},
    workload::Work,
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

pub(crate) async fn run<B: Backend>(bench: &mut Bench, backend: &B) -> Result<()> {
    for ids in [Ids::Random, Ids::TimeOrdered] {
        run_with(ids, bench, backend).await?;
    }
    Ok(())
}

async fn run_with<B: Backend>(ids: Ids, bench: &mut Bench, backend: &B) -> Result<()> {
    let datastore = datastore(B::NAME, ids);
    if !selects(bench, &datastore) {
        return Ok(());
    }
    let amounts = Amount::all(bench, ids);
    let mut filled = Vec::new();
    for amount in &amounts {
        let name = format!("growth {ids:?} {}", amount.stored);
        filled.push(backend.fill(&name, amount.fixture.stored()).await?);
    }
    // Systems and experiments store in one datastore in turns: each has its own aggregates.
    let mut supplies = (1..).map(|number: u64| Supply::starting_at(number << 32).with_ids(ids));
    for number in 0..WORKLOADS {
        let works: Vec<_> =
            amounts.iter().map(|amount| workloads(bench, amount.fixture)[number].clone()).collect();
        let what = works[0].0;
        let (bare, bare_name) = B::bare(what.contains("64 tasks"));
        let plan = plan(ids, &datastore, what, B::OURS, bare_name, &amounts);
        bench
            .measure(plan, async || {
                let mut systems = Vec::new();
                for ((amount, datastore), (_, work)) in amounts.iter().zip(&filled).zip(&works) {
                    for (system, series) in [(B::OURS, B::OURS), (bare, bare_name)] {
                        let supply = supplies.next().context("no aggregates are left")?;
                        let name = name(series, amount.stored);
                        systems.push(open(system, &name, datastore, work, supply).await?);
                    }
                }
                Ok(systems)
            })
            .await?;
    }
    // The next experiments need the space.
    backend.clear().await
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
            let point = ChartPoint {
                chart: chart.clone(),
                axis: AXIS.into(),
                series: series.into(),
                x: stored as f64,
            };
            (name, point)
        })
        .collect();
    Plan::new(chart, ROUNDS)
        .within(slower(ids), &name(ours, 0))
        .compare(&name(bare, largest), Measure::Time)
        .chart_points(move |system| {
            points.iter().find(|(name, _)| name == system).map(|(_, point)| point.clone())
        })
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

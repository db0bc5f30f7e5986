//! One scenario: who does what, and when.

use std::{
    fmt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use tokio::try_join;

use crate::{
    checks::{self, Findings},
    configuration::{Configuration, Language},
    database::Database,
    process::{Circumstances, Process},
    role::Role,
};

/// The number of turns of each side: a multiple of the number of accounts.
const TURNS: u32 = 60;

/// The result of a scenario.
#[derive(Debug)]
pub(crate) struct Summary {
    events: usize,
    /// Refused writes of accounts, by Rust and by Python.
    conflicts: [u64; 2],
    /// Notifications processed by Rust and by Python.
    processed: [u64; 2],
    snapshots: [usize; 2],
    duration: Duration,
}

/// Plays the scenario.
///
/// # Errors
/// When a process fails or takes too long, and when their findings differ; all flaws are named.
pub(crate) async fn run(configuration: &Configuration, environments: &Path) -> Result<Summary> {
    let start = Instant::now();
    let database = Database::create(configuration.datastore, environments).await?;
    let findings = play(configuration, environments, &database).await;
    database.remove().await?;
    let findings = findings?;
    let flaws = checks::flaws(&findings);
    if !flaws.is_empty() {
        bail!("{}", flaws.join("; "));
    }
    Ok(Summary {
        events: findings.reports[0].log.len(),
        conflicts: findings.written.each_ref().map(|written| written.conflicts),
        processed: findings.processed.each_ref().map(|processed| processed.processed),
        snapshots: findings.written.each_ref().map(|written| written.snapshots.len()),
        duration: start.elapsed(),
    })
}

async fn play(configuration: &Configuration, environments: &Path, database: &Database) -> Result<Findings> {
    let settings = configuration.settings().into_iter().map(|(name, value)| (name, value.to_owned()));
    let circumstances = Circumstances {
        environments,
        python: configuration.python,
        settings: settings.chain(database.settings()?).collect(),
        turns: TURNS,
    };
    alone::<()>(&circumstances, configuration.tables_by, Role::OpenBank).await?;
    alone::<()>(&circumstances, configuration.ledger_tables_by(), Role::OpenLedger).await?;
    race(&circumstances).await
}

/// All at the same time: both write, both follow, both process; then both report.
async fn race(circumstances: &Circumstances<'_>) -> Result<Findings> {
    let mut writers = both(circumstances, Role::Write).await?;
    let mut followers = both(circumstances, Role::Follow).await?;
    let mut processors = both(circumstances, Role::Process).await?;
    for process in writers.iter_mut().chain(&mut followers).chain(&mut processors) {
        process.begin().await?;
    }
    let written = finish(writers).await?;
    alone::<()>(circumstances, Language::Rust, Role::LastTurn).await?;
    let (followed, processed) = try_join!(finish(followers), finish(processors))?;
    let mut reporters = both(circumstances, Role::Report).await?;
    for process in &mut reporters {
        process.begin().await?;
    }
    let reports = finish(reporters).await?;
    Ok(Findings { turns: TURNS, written, followed, processed, reports })
}

/// A process in each language, ready to begin: the one that starts slowly is not to miss the race.
///
/// One after the other. When two processes of version 9.5 of the Python library open one PostgreSQL database
/// at the same time, one fails ("tuple concurrently updated"), since each replaces the same function.
async fn both(circumstances: &Circumstances<'_>, role: Role) -> Result<[Process; 2]> {
    let rust = Process::start(circumstances, Language::Rust, role).await?;
    let python = Process::start(circumstances, Language::Python, role).await?;
    Ok([rust, python])
}

async fn finish<F: DeserializeOwned>([rust, python]: [Process; 2]) -> Result<[F; 2]> {
    Ok(try_join!(rust.finish(), python.finish())?.into())
}

async fn alone<F: DeserializeOwned>(
    circumstances: &Circumstances<'_>,
    language: Language,
    role: Role,
) -> Result<F> {
    let mut process = Process::start(circumstances, language, role).await?;
    process.begin().await?;
    process.finish().await
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, conflicts, processed, snapshots, duration } = self;
        write!(formatter, "{events} events; ")?;
        write!(formatter, "Rust and Python had {} and {} conflicts, ", conflicts[0], conflicts[1])?;
        write!(formatter, "processed {} and {}, ", processed[0], processed[1])?;
        write!(
            formatter,
            "took {} and {} snapshots; {:.1} s",
            snapshots[0],
            snapshots[1],
            duration.as_secs_f64()
        )
    }
}

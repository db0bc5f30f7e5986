//! A campaign on the versions of a projection: they are built, switched to, rolled back, paused, reset and
//! dropped, while others write, project and read, and the processes are killed.
//!
//! After each round, the side effects are compared with the log: each notification up to the position has had
//! one. Readers verify meanwhile that they see one version, whole.

mod operator;
mod projection;
mod reader;
mod verification;

use std::{collections::HashSet, fmt, num::NonZeroUsize, ops::AddAssign, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use es_core::{DynApplicationRecorder, ErrorKind, Expected, PersistenceError, uuid::Uuid};
use es_factory::{InfrastructureFactory, VersionState};
use es_process::{Processor, ProcessorError};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use self::{
    operator::{OPERATOR, operate},
    projection::{Counted, Counts, NAME},
    reader::read,
    verification::{catch_up, verify},
};
use crate::{
    child::{Job, Role},
    clients::stopped,
    history::Message,
    kill_point::{HANDLER, KillPoint, Plan},
    process::{Child, End},
    progress,
    report::Report,
    test_database::{Backend, TestDatabase},
};

/// The number of rounds on one database.
pub const ROUNDS: u32 = 4;

/// The time limit for a process to reach its kill point.
const SELF_KILL_WAIT: Duration = Duration::from_millis(500);

/// The task of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Task {
    /// Appends events.
    Write,
    /// Runs a processor for each version.
    Project(Option<Planted>),
    /// Reads the views.
    Read,
    /// Changes the versions.
    Operate(Option<Planted>),
}

/// A fault that the campaign must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Planted {
    /// A switch that replaces one of two views.
    Mixture,
    /// A side effect that is repeated by a replay.
    Double,
    /// A side effect that is left out.
    Skip,
}

/// Counts of the work of a campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Databases.
    pub databases: usize,
    /// Rounds.
    pub rounds: usize,
    /// Processes that were started.
    pub processes: usize,
    /// Those that were killed at a random moment.
    pub killed: usize,
    /// Those that killed themselves at a point, or shortly after it.
    pub self_killed: usize,
    /// Versions that were registered.
    pub versions: usize,
    /// Changes of versions.
    pub changes: usize,
    /// Events in the logs at the end.
    pub events: usize,
    /// Side effects at the end.
    pub effects: usize,
}

/// Runs the campaign of a seed on one database, with a planted fault or without.
///
/// # Errors
/// If a guarantee was violated.
pub async fn run(seed: u64, rounds: u32, program: &Path, planted: Option<Planted>) -> Result<Tally> {
    let backends = Backend::available();
    let index = usize::try_from(seed).unwrap_or(0) % backends.len();
    let backend = backends.get(index).copied().unwrap_or(Backend::Sqlite);
    let directory = tempfile::tempdir()?;
    let database = TestDatabase::create(backend, directory.path(), &format!("{seed}_versions")).await?;
    let outcome = campaign(seed, rounds, program, planted, &database).await;
    let outcome = outcome.with_context(|| format!("seed {seed} ({database:?}), {rounds} rounds of switches"));
    if outcome.is_err() && planted.is_none() {
        // For an investigation.
        let _ = directory.keep();
    } else {
        database.delete().await?;
    }
    outcome
}

async fn campaign(
    seed: u64,
    rounds: u32,
    program: &Path,
    planted: Option<Planted>,
    database: &TestDatabase,
) -> Result<Tally> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tally = Tally { databases: 1, ..Tally::default() };
    let factory = database.factory()?;
    factory.application_recorder().await?;
    factory.versioned_projector(NAME, 1, Counted::new(KillPoint::new(None), planted)).await?;
    factory.close().await?;
    for round in 1..=rounds {
        tally.rounds += 1;
        progress::show(format_args!("seed {seed}, round {round} of {rounds}"));
        run_round(round, &mut random, program, planted, database, &mut tally)
            .with_context(|| format!("round {round}"))?;
        verify(database).await.with_context(|| format!("after round {round}"))?;
    }
    catch_up(database, planted).await.context("at the end")?;
    let (versions, changes, events, effects) = verify(database).await.context("at the end")?;
    Ok(Tally { versions, changes, events, effects, ..tally })
}

/// Starts processes, lets them work for a while, and ends them: one way or another.
fn run_round(
    round: u32,
    random: &mut fastrand::Rng,
    program: &Path,
    planted: Option<Planted>,
    database: &TestDatabase,
    tally: &mut Tally,
) -> Result<()> {
    let (project, operate) = (Task::Project(planted), Task::Operate(planted));
    let mut tasks = vec![Task::Write, project, Task::Read, operate];
    tasks.extend([project, Task::Read, operate].iter().filter(|_| random.bool()));
    let mut children = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        let point = match task {
            Task::Project(_) => Some(HANDLER),
            Task::Operate(_) => Some(OPERATOR),
            Task::Read | Task::Write => None,
        };
        let often = [2, 10, 100][random.usize(0..3)];
        let kill_point = point.filter(|_| random.bool()).map(|point| Plan {
            point: point.to_owned(),
            passing: random.i64(1..=often),
            delay: if random.bool() { 0 } else { random.u64(1..5_000) },
            pauses: false,
        });
        let job = Job {
            name: format!("r{round}{task:?}{number}"),
            seed: random.u32(..),
            round,
            upstream: database.clone(),
            role: Role::Switches(task),
            kill_point,
        };
        children.push((task, Child::spawn(program, &job)?));
    }
    tally.processes += children.len();
    for (_, child) in &mut children {
        child.wait_until_ready()?;
    }
    thread::sleep(Duration::from_millis(random.u64(100..800)));
    random.shuffle(&mut children);
    for (task, child) in &mut children {
        thread::sleep(Duration::from_millis(random.u64(0..40)));
        if child.kills_itself_within(SELF_KILL_WAIT)? {
            continue;
        }
        // A reader has the last word on what it has read.
        if matches!(task, Task::Read) || random.u8(0..3) == 0 { child.stop() } else { child.kill()? }
    }
    for (_, child) in children {
        match child.end()?.0 {
            End::Killed => tally.killed += 1,
            End::SelfKilled => tally.self_killed += 1,
            End::Stopped => {}
        }
    }
    Ok(())
}

/// Does the task of a process until the stop signal.
///
/// # Errors
/// If a call fails with an error that the faults do not explain, or a reader sees what must not be.
pub async fn work(
    task: Task,
    database: &TestDatabase,
    kill_point: KillPoint,
    seed: u64,
    report: &Report,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let factory = database.factory()?;
    factory.application_recorder().await?;
    report.say(Message::Ready);
    let random = fastrand::Rng::with_seed(seed);
    match task {
        Task::Write => write(&factory, random, stop).await?,
        Task::Project(planted) => project(&factory, Counted::new(kill_point, planted), random, stop).await?,
        Task::Read => read(database, random, stop).await?,
        Task::Operate(planted) => operate(&factory, database, kill_point, planted, random, stop).await?,
    }
    Ok(factory.close().await?)
}

async fn write(
    factory: &InfrastructureFactory,
    mut random: fastrand::Rng,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let store = factory.event_store().await?;
    while !*stop.borrow() {
        let events = (0..random.usize(1..5)).map(|_| Counts);
        match store.append(Uuid::from_u128(random.u128(..)), Expected::New, events).await {
            Err(error) if !error.is_transient() && !error.is_outcome_unknown() => return Err(error.into()),
            _ => {}
        }
        sleep(Duration::from_millis(random.u64(0..4))).await;
    }
    Ok(())
}

/// Runs a processor for each version that exists, or is registered meanwhile.
async fn project(
    factory: &InfrastructureFactory,
    projection: Counted,
    mut random: fastrand::Rng,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let upstream = factory.application_recorder().await?;
    let (mut running, mut tasks, mut handles) = (HashSet::new(), JoinSet::new(), Vec::new());
    while !*stop.borrow() {
        for version in factory.projections().versions(NAME).await? {
            if version.state == VersionState::Dropped || running.contains(&version.version) {
                continue;
            }
            let Some(mut processor) =
                processor(factory, &upstream, version.version, &projection, &mut random).await?
            else {
                continue;
            };
            handles.push(processor.stop_handle());
            running.insert(version.version);
            tasks.spawn(async move { (version.version, processor.run().await) });
        }
        let ended = tokio::select! {
            Some(ended) = tasks.join_next() => Some(ended?),
            () = stopped(stop.clone()) => None,
            () = sleep(Duration::from_millis(30)) => None,
        };
        if let Some((version, result)) = ended {
            running.remove(&version);
            allow(result)?;
        }
    }
    handles.iter().for_each(es_core::StopHandle::stop);
    while let Some(ended) = tasks.join_next().await {
        allow(ended?.1)?;
    }
    Ok(())
}

type VersionProcessor =
    Processor<std::sync::Arc<dyn DynApplicationRecorder>, es_factory::VersionedProjector<Counted>>;

/// Returns a processor; `None` if the version was dropped meanwhile.
async fn processor(
    factory: &InfrastructureFactory,
    upstream: &std::sync::Arc<dyn DynApplicationRecorder>,
    version: u32,
    projection: &Counted,
    random: &mut fastrand::Rng,
) -> Result<Option<VersionProcessor>> {
    let projector = match factory.versioned_projector(NAME, version, projection.clone()).await {
        Ok(projector) => projector,
        Err(error) if is_explained(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let batch_size = NonZeroUsize::new(random.usize(1..64)).unwrap_or(NonZeroUsize::MIN);
    let name = projector.consumer_name().to_owned();
    let processor = Processor::with_consumer(name, upstream.clone(), projector)
        .batch_size(batch_size)
        .poll_interval(Duration::from_millis(20))
        .standby_pause(Duration::from_millis(20));
    Ok(Some(processor))
}

/// Fails if a change of the version does not explain the end of its processor.
fn allow(result: Result<(), ProcessorError>) -> Result<()> {
    match result {
        Err(ProcessorError::Persistence { source, .. })
            if source.is_rolled_back() || is_explained(&source) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Returns whether a concurrent change of the versions explains an error.
fn is_explained(error: &PersistenceError) -> bool {
    error.is_transient() || matches!(error.kind(), ErrorKind::Programming | ErrorKind::TimedOut)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.databases += other.databases;
        self.rounds += other.rounds;
        self.processes += other.processes;
        self.killed += other.killed;
        self.self_killed += other.self_killed;
        self.versions += other.versions;
        self.changes += other.changes;
        self.events += other.events;
        self.effects += other.effects;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} databases, {} rounds, {} processes ({} killed at a random moment, {} at a point), {} versions, \
             {} changes of them; {} events and {} effects found",
            self.databases,
            self.rounds,
            self.processes,
            self.killed,
            self.self_killed,
            self.versions,
            self.changes,
            self.events,
            self.effects
        )
    }
}

//! A campaign on a database: round after round, processes write and read it and are killed, and after
//! each round everything that was promised must hold.

use std::{
    fmt, fs,
    ops::AddAssign,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use es_core::{
    ApplicationRecorder, ApplicationRecorderExt, NotificationSelection, TrackingRecorder, TrackingRecorderExt,
};
use futures_util::TryStreamExt;
use tokio::sync::watch;

use crate::{
    check::check,
    child::{Job, Role},
    clients::{Clients, FEEDS},
    cluster::{Cluster, Fault},
    effects::{self, Kind},
    history::{Answer, Call, History, Message, Recorded, TOPICS},
    kill_point::{HANDLER, KillPoint, Plan},
    process::{Child, End},
    progress,
    report::{Report, now},
    test_database::{Backend, Recorder, TestDatabase},
};

/// The number of rounds on one pair of databases.
pub const ROUNDS: u32 = 4;

/// The time limit for a process to reach its kill point.
const SELF_KILL_WAIT: Duration = Duration::from_millis(700);

/// The time limit for an undisturbed processor to move on.
const CATCH_UP: Duration = Duration::from_secs(60);

/// The time limit until writes continue after a fault of the cluster.
const FAILOVER: Duration = Duration::from_secs(60);

/// The time that a paused primary stays paused after a standby has taken over.
const LONG_PAUSE: Duration = Duration::from_secs(30);

/// The number of broken promises that a failure names.
const SHOWN: usize = 20;

/// The pause of writers between two calls, so that the history of a failover stays small.
const PAUSE: Duration = Duration::from_millis(100);

/// Counts of the work of a campaign.
#[derive(Clone, Debug, Default)]
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
    /// Puts, gets and selects.
    pub operations: usize,
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Puts that were refused because of a conflict.
    pub conflicts: usize,
    /// Puts whose client was killed before it knew.
    pub unanswered: usize,
    /// Puts that failed with a transient error.
    pub failed: usize,
    /// Puts whose outcome the recorder could not determine.
    pub unknown: usize,
    /// Times that the log seemed to have lost events, because a paused primary answered from its old state.
    pub alarms: usize,
    /// Times that a processor was started again after an error.
    pub restarts: usize,
    /// The effects of the faults of the cluster.
    pub outages: Vec<Outage>,
    /// Events in the logs at the end.
    pub events: usize,
    /// Effects of processors at the end.
    pub effects: usize,
}

/// The effect of a fault of the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// The fault.
    pub fault: Fault,
    /// The longest time without an acknowledged put.
    pub time: Duration,
    /// Another node became the primary.
    pub is_failover: bool,
}

/// One database, or rather two: an upstream, and a downstream that processes it.
struct Campaign<'a> {
    seed: u64,
    program: &'a Path,
    /// The cluster whose nodes are the ones to fail, instead of the processes.
    cluster: Option<&'a Cluster>,
    random: fastrand::Rng,
    downstream_backend: Backend,
    upstream: TestDatabase,
    downstream: TestDatabase,
    /// The kind of effects of processors, and the topic of the events they process.
    work: (Kind, Option<usize>),
    history: History,
    tally: Tally,
}

/// Runs the campaign that follows from its seed, as far as the system's scheduling lets it. With a cluster,
/// its nodes fail instead of the processes.
///
/// # Errors
/// Says which promise was broken.
pub async fn run(seed: u64, rounds: u32, program: &Path, cluster: Option<&Cluster>) -> Result<Tally> {
    let backends = match cluster {
        Some(_) => &[Backend::Postgres, Backend::Parallel],
        None => Backend::available(),
    };
    let choose = |number: u64| {
        let index = usize::try_from(number).unwrap_or(0) % backends.len();
        backends.get(index).copied().unwrap_or(Backend::Sqlite)
    };
    let chosen = (choose(seed), choose(seed / backends.len() as u64));
    let directory = tempfile::tempdir()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let upstream = database(chosen.0, directory.path(), &format!("{seed}_up"), &mut random).await?;
    let downstream = database(chosen.1, directory.path(), &format!("{seed}_down"), &mut random).await?;
    let mut campaign = Campaign {
        seed,
        program,
        cluster,
        work: some_work(&mut random),
        random,
        downstream_backend: chosen.1,
        upstream: upstream.clone(),
        downstream: downstream.clone(),
        history: History::default(),
        tally: Tally { databases: 1, ..Tally::default() },
    };
    let outcome = campaign.rounds(rounds).await;
    let work = campaign.work;
    let option = if cluster.is_some() { "failovers" } else { "rounds" };
    let again = || {
        format!(
            "seed {seed} ({upstream:?}, {downstream:?}, {work:?}); again: \
             cargo xtask faults --seed {seed} --{option} {rounds}"
        )
    };
    let outcome = outcome.with_context(again);
    if outcome.is_err() {
        let kept = keep(directory, &campaign.history);
        eprint(&format!("the databases are kept: {kept}, {upstream:?}, {downstream:?}"));
    } else {
        upstream.delete().await?;
        downstream.delete().await?;
    }
    outcome?;
    Ok(campaign.tally)
}

/// An empty database, half of them with hints, and half of them with tracking as in Python's version 9.1.
async fn database(
    backend: Backend,
    directory: &Path,
    name: &str,
    random: &mut fastrand::Rng,
) -> Result<TestDatabase> {
    let mut database = TestDatabase::create(backend, directory, name).await?;
    if random.bool() {
        database = database.with_hints();
    }
    if random.bool() {
        database.create_row_per_position().await?;
    }
    Ok(database)
}

/// Half of the processors process one topic, the others all.
fn some_work(random: &mut fastrand::Rng) -> (Kind, Option<usize>) {
    let kind = if random.bool() { Kind::Events } else { Kind::Rows };
    (kind, random.bool().then(|| random.usize(0..TOPICS.len())))
}

/// Keeps the files, with the operations and the log beside them.
fn keep(directory: tempfile::TempDir, history: &History) -> String {
    let directory = directory.keep();
    if let Ok(history) = serde_json::to_vec(history) {
        // It only helps to find the cause.
        let _ = fs::write(directory.join("history.json"), history);
    }
    directory.display().to_string()
}

#[expect(clippy::print_stderr, reason = "a failure is investigated in its databases")]
fn eprint(message: &str) {
    eprintln!("{message}");
}

impl Campaign<'_> {
    async fn rounds(&mut self, rounds: u32) -> Result<()> {
        for round in 1..=rounds {
            self.tally.rounds += 1;
            progress::show(format_args!("seed {}, round {round} of {rounds}", self.seed));
            let messages = match self.cluster {
                Some(cluster) => self.failover(cluster, round).await,
                None => self.round(round),
            };
            let messages = messages.with_context(|| format!("round {round}"))?;
            let alarms = messages.iter().filter(|message| matches!(message, Message::RolledBack)).count();
            // Without a watchdog, a primary that was replaced answers from its old state until it notices.
            let may_alarm =
                self.cluster.is_some_and(|cluster| self.fault(cluster, round).leaves_two_primaries());
            ensure!(
                alarms == 0 || may_alarm,
                "round {round}: {alarms} times the log seemed to be rolled back"
            );
            self.tally.alarms += alarms;
            let is_restart = |message: &&Message| matches!(message, Message::Restarted);
            self.tally.restarts += messages.iter().filter(is_restart).count();
            self.record(messages);
            self.verify(round).await.with_context(|| format!("after round {round}"))?;
        }
        self.catch_up().await.context("at the end")
    }

    /// Starts processes, lets them work for a while, and ends them: one way or another.
    fn round(&mut self, round: u32) -> Result<Vec<Message>> {
        let mut children = Vec::new();
        let clients = self.random.u32(1..=2);
        let processors = self.random.u32(1..=2);
        for number in 0..clients + processors {
            let role = match number {
                _ if number >= clients => Role::Processor(self.downstream.clone(), self.work),
                _ => Role::Clients([1, 4, 16][self.random.usize(0..3)], Duration::ZERO),
            };
            let job = self.job(round, number, role);
            children.push(Child::spawn(self.program, &job)?);
        }
        self.tally.processes += children.len();
        for child in &mut children {
            child.wait_until_ready()?;
        }
        thread::sleep(Duration::from_millis(self.random.u64(20..400)));
        self.random.shuffle(&mut children);
        let mut messages = Vec::new();
        for child in &mut children {
            thread::sleep(Duration::from_millis(self.random.u64(0..40)));
            let is_stopped = self.random.u8(0..3) == 0;
            if child.kills_itself_within(SELF_KILL_WAIT)? {
                continue;
            }
            if is_stopped { child.stop() } else { child.kill()? }
        }
        for child in children {
            let (end, said) = child.end()?;
            match end {
                End::Killed => self.tally.killed += 1,
                End::SelfKilled => self.tally.self_killed += 1,
                End::Stopped => {}
            }
            messages.extend(said);
        }
        Ok(messages)
    }

    /// Causes a fault of the cluster while processes work, and lets them work until it is repaired.
    async fn failover(&mut self, cluster: &Cluster, round: u32) -> Result<Vec<Message>> {
        let fault = self.fault(cluster, round);
        progress::show(format_args!("seed {}, round {round}: {fault}", self.seed));
        let clients = Role::Clients(4, PAUSE);
        let processor = Role::Processor(self.downstream.clone(), self.work);
        let (primary, standbys) = (self.upstream.clone(), self.upstream.clone().with_standby_reads());
        let mut roles = vec![
            (clients.clone(), &primary),
            (clients, &primary),
            (processor.clone(), &primary),
            (processor, &standbys),
        ];
        if standbys.reads_from_standbys() {
            roles.push((Role::Readers(PAUSE), &standbys));
        }
        let mut children = Vec::new();
        for (number, (role, upstream)) in (0..).zip(roles) {
            let job = self.job(round, number, role);
            let job = Job { kill_point: None, upstream: upstream.clone(), ..job };
            children.push(Child::spawn(self.program, &job)?);
        }
        self.tally.processes += children.len();
        for child in &mut children {
            child.wait_until_ready()?;
        }
        let mut messages = self.append_in_time(round, "early").await?;
        thread::sleep(Duration::from_millis(self.random.u64(300..1_500)));
        let old_primary = cluster.primary()?;
        let struck = now();
        cluster.cause(fault)?;
        if fault.is_cut() {
            // Longer than a leadership lasts.
            thread::sleep(Duration::from_millis(self.random.u64(8_000..10_000)));
        }
        if fault == Fault::CutNodes {
            // Before that, nothing is acknowledged.
            cluster.resume()?;
        }
        let late = self.append_in_time(round, "late").await;
        messages.extend(late.with_context(|| format!("after a {fault}"))?);
        // Long enough for the processes to find the new primary, too.
        thread::sleep(Duration::from_millis(self.random.u64(1_000..2_000)));
        if fault == Fault::LongPause {
            thread::sleep(LONG_PAUSE);
        }
        if fault.lasts() {
            cluster.resume()?;
        }
        thread::sleep(Duration::from_millis(self.random.u64(500..1_500)));
        cluster.up().context("the cluster is not repaired")?;
        thread::sleep(Duration::from_millis(200));
        children.iter_mut().for_each(Child::stop);
        for child in children {
            messages.extend(child.end().with_context(|| format!("during a {fault}"))?.1);
        }
        let is_failover = cluster.primary()? != old_primary;
        self.tally.outages.push(Outage { fault, time: outage(&messages, struck), is_failover });
        Ok(messages)
    }

    /// The fault of a round: each of them occurs in both orderings.
    fn fault(&self, cluster: &Cluster, round: u32) -> Fault {
        let number = self.seed / 2 * u64::from(ROUNDS) + u64::from(round) - 1;
        let index = usize::try_from(number).unwrap_or(0) % cluster.faults().len().max(1);
        cluster.faults().get(index).copied().unwrap_or(Fault::Primary)
    }

    /// Appends, again and again, until an append is acknowledged, as a program that is started after a
    /// fault.
    async fn append_in_time(&mut self, round: u32, name: &str) -> Result<Vec<Message>> {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let report = Arc::new(recording(format!("r{round}{name}"), &messages));
        let (_stop, stopped) = watch::channel(false);
        let began = Instant::now();
        loop {
            let answer = match self.upstream.open(&KillPoint::new(None)).await {
                Ok(upstream) => {
                    let (report, seed) = (Arc::clone(&report), self.random.u32(..));
                    let client = Clients::new(upstream.clone(), report, round, seed, stopped.clone());
                    client.put_one().await.map(|answer| matches!(answer, Answer::Recorded(_)))
                }
                Err(error) => Err(error),
            };
            match answer {
                Ok(true) => return Ok(taken(&messages)),
                Err(error) if began.elapsed() > FAILOVER => return Err(error),
                Ok(false) if began.elapsed() > FAILOVER => bail!("no append was acknowledged"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn job(&mut self, round: u32, number: u32, role: Role) -> Job {
        let mut points = match role {
            Role::Clients(..) | Role::Readers(_) | Role::Switches(_) | Role::Worker(..) => {
                self.upstream.points()
            }
            Role::Processor(_, (Kind::Rows, _)) => self.downstream_backend.points_of_projectors().to_vec(),
            Role::Processor(_, (Kind::Events, _)) => self.downstream_backend.points_of_handlers().to_vec(),
        };
        if matches!(role, Role::Processor(..)) {
            points.push(HANDLER);
        }
        // Some points are passed often, and some seldom.
        let often = [1, 3, 20][self.random.usize(0..3)];
        let kill_point = Plan {
            point: points[self.random.usize(0..points.len())].to_owned(),
            passing: self.random.i64(1..=often),
            delay: if self.random.bool() { 0 } else { self.random.u64(1..3_000) },
            pauses: false,
        };
        let kill_point = (self.random.u8(0..4) > 0).then_some(kill_point);
        let name = format!("r{round}p{number}");
        Job { name, seed: self.random.u32(..), round, upstream: self.upstream.clone(), role, kill_point }
    }

    fn record(&mut self, messages: impl IntoIterator<Item = Message>) {
        messages.into_iter().for_each(|message| self.history.record(message));
    }

    /// Opens both databases as the next program would, and checks all that was promised.
    async fn verify(&mut self, round: u32) -> Result<()> {
        let upstream =
            self.upstream.open(&KillPoint::new(None)).await.context("the upstream does not open")?;
        self.append_once(round, &upstream).await?;
        let log = read(&upstream).await?;
        ensure!(log.starts_with(&self.history.log), "what an earlier round left is not there as it was");
        self.history.log = log;
        self.history.positions.clear();
        for name in FEEDS {
            if let Some(position) = upstream.max_tracking_id(name).await? {
                self.history.positions.insert(name.to_owned(), position);
            }
        }
        let violations = check(&self.history);
        if !violations.is_empty() {
            let shown: Vec<_> = violations.iter().take(SHOWN).map(ToString::to_string).collect();
            bail!("{} broken promises: {}", violations.len(), shown.join("; "));
        }
        es_core::Recorder::close(&upstream).await?;
        effects::check(&self.history.log, &self.downstream, self.work).await.context("in the downstream")?;
        self.count();
        Ok(())
    }

    /// Appends once more, with the parent as the client.
    async fn append_once(&mut self, round: u32, upstream: &Recorder) -> Result<()> {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let report = Arc::new(recording(format!("r{round}parent"), &messages));
        let (_stop, stopped) = watch::channel(false);
        let client = Clients::new(upstream.clone(), report, round, self.random.u32(..), stopped);
        let answer = client.put_one().await?;
        ensure!(matches!(answer, Answer::Recorded(_)), "recording does not go on: {answer:?}");
        self.record(taken(&messages));
        Ok(())
    }

    /// An undisturbed processor brings the effects of all that is left.
    async fn catch_up(&mut self) -> Result<()> {
        let kill_point = KillPoint::new(None);
        let upstream = self.upstream.open(&kill_point).await?;
        let downstream = self.downstream.open(&kill_point).await?;
        let end = upstream.max_notification_id().await?.unwrap_or(0);
        let (stopper, stop) = watch::channel(false);
        let (database, work, seed) = (self.downstream.clone(), self.work, self.random.u64(..));
        let processing =
            tokio::spawn(
                async move { effects::process(upstream, &database, work, kill_point, seed, stop).await },
            );
        let mut position = None;
        while let Err(error) = downstream.wait(effects::UPSTREAM, end, CATCH_UP).await {
            let reached = downstream.max_tracking_id(effects::UPSTREAM).await?;
            ensure!(error.is_transient() && reached > position, error);
            position = reached;
        }
        stopper.send_replace(true);
        processing.await??;
        let (effects, position) = effects::check(&self.history.log, &self.downstream, self.work).await?;
        ensure!(position == end, "the processor stopped at {position} instead of {end}");
        self.tally.effects = effects;
        Ok(es_core::Recorder::close(&downstream).await?)
    }

    fn count(&mut self) {
        let operations = &self.history.operations;
        let puts = operations.iter().filter(|operation| matches!(operation.call, Call::Put { .. }));
        let (mut acknowledged, mut conflicts, mut unanswered, mut unknown, mut failed) = (0, 0, 0, 0, 0);
        for put in puts {
            match put.returned.as_ref().map(|(_, answer)| answer) {
                Some(Answer::Recorded(_)) => acknowledged += 1,
                Some(Answer::Conflict | Answer::TrackingConflict) => conflicts += 1,
                Some(Answer::Unknown) => unknown += 1,
                Some(Answer::Refused) => failed += 1,
                None => unanswered += 1,
                Some(_) => {}
            }
        }
        let (operations, events) = (operations.len(), self.history.log.len());
        let tally = std::mem::take(&mut self.tally);
        self.tally =
            Tally { operations, acknowledged, conflicts, unanswered, unknown, failed, events, ..tally };
    }
}

/// A report whose messages are kept.
fn recording(name: String, messages: &Arc<Mutex<Vec<Message>>>) -> Report {
    let messages = Arc::clone(messages);
    Report::new(name, move |message| messages.lock().unwrap_or_else(PoisonError::into_inner).push(message))
}

fn taken(messages: &Mutex<Vec<Message>>) -> Vec<Message> {
    std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The longest time without an acknowledged put from a moment on.
fn outage(messages: &[Message], moment: u64) -> Duration {
    let acknowledged = messages.iter().filter_map(|message| match message {
        Message::Returned { at, answer: Answer::Recorded(_), .. } => Some(*at),
        _ => None,
    });
    let mut times: Vec<u64> = acknowledged.filter(|at| *at > moment).collect();
    times.sort_unstable();
    let begins = std::iter::once(&moment).chain(&times);
    Duration::from_nanos(begins.zip(&times).map(|(begin, end)| end - begin).max().unwrap_or(0))
}

async fn read(upstream: &Recorder) -> Result<Vec<Recorded>> {
    let all = upstream.stream_notifications(NotificationSelection::new(usize::MAX));
    Ok(all.map_ok(|one| Recorded::read(&one)).try_collect().await?)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.databases += other.databases;
        self.rounds += other.rounds;
        self.processes += other.processes;
        self.killed += other.killed;
        self.self_killed += other.self_killed;
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.conflicts += other.conflicts;
        self.unanswered += other.unanswered;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.alarms += other.alarms;
        self.restarts += other.restarts;
        self.outages.extend(other.outages);
        self.events += other.events;
        self.effects += other.effects;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} databases, {} rounds, {} processes ({} killed at a random moment, {} at a point), {} operations: \
             {} puts acknowledged, {} refused by a conflict, {} unanswered, {} failed, {} unknown; {} events and \
             {} effects found",
            self.databases,
            self.rounds,
            self.processes,
            self.killed,
            self.self_killed,
            self.operations,
            self.acknowledged,
            self.conflicts,
            self.unanswered,
            self.failed,
            self.unknown,
            self.events,
            self.effects
        )?;
        if self.alarms > 0 {
            write!(f, "; {} times the log seemed to be rolled back", self.alarms)?;
        }
        if !self.outages.is_empty() {
            write!(f, "; {} times a processor was started again", self.restarts)?;
        }
        for fault in Fault::value_variants() {
            let outages: Vec<_> = self.outages.iter().filter(|outage| outage.fault == *fault).collect();
            let failovers = outages.iter().filter(|outage| outage.is_failover).count();
            let mut times: Vec<Duration> = outages.iter().map(|outage| outage.time).collect();
            times.sort_unstable();
            if let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) {
                let (median, worst) = (median.as_secs_f64(), worst.as_secs_f64());
                write!(
                    f,
                    "\n  {}, {fault}: no write for {median:.1} s (median), {worst:.1} s (worst), {failovers} new \
                     primaries",
                    times.len()
                )?;
            }
        }
        Ok(())
    }
}

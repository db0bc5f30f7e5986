//! The life of a database: round after round, processes write and read it and are killed, and after
//! each round everything that was promised must hold.

use std::{
    fmt,
    ops::AddAssign,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use es_core::{ApplicationRecorder, ApplicationRecorderExt, NotificationSelection, TrackingRecorder};
use futures_util::TryStreamExt;
use tokio::sync::watch;

use crate::{
    check::check,
    child::{Job, Role},
    clients::{Clients, FEEDS},
    effects::{self, Kind},
    fuse::{Fuse, HANDLER, Plan},
    history::{Answer, Call, History, Message, Recorded, TOPICS},
    place::{Backend, Place, Recorder},
    process::{Child, End},
    report::Report,
};

/// How often the processes of one database are killed before the next database.
pub const ROUNDS: u32 = 4;

/// How long a process that is to be killed at a point may take to come there.
const FUSE_BURNS: Duration = Duration::from_millis(700);

/// How long the parent waits for a processor that nobody disturbs.
const CATCH_UP: Duration = Duration::from_secs(60);

/// What was done, and how much of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Databases.
    pub lives: usize,
    /// Rounds.
    pub rounds: usize,
    /// Processes that were started.
    pub processes: usize,
    /// Those that were killed at a random moment.
    pub killed: usize,
    /// Those that killed themselves at a point, or shortly after it.
    pub burnt: usize,
    /// Puts, gets and selects.
    pub operations: usize,
    /// Puts that were acknowledged.
    pub acknowledged: usize,
    /// Puts that were refused because of a conflict.
    pub conflicts: usize,
    /// Puts whose client was killed before it knew.
    pub unanswered: usize,
    /// Events in the logs at the end.
    pub events: usize,
    /// Effects of processors at the end.
    pub effects: usize,
}

/// One database, or rather two: an upstream, and a downstream that processes it.
struct Life<'a> {
    program: &'a Path,
    random: fastrand::Rng,
    downstream_backend: Backend,
    upstream: Place,
    downstream: Place,
    /// What processors do, and with events of which topic.
    work: (Kind, Option<usize>),
    history: History,
    tally: Tally,
}

/// Lives a life that follows from its seed, as far as the system's scheduling lets it.
///
/// # Errors
/// Says which promise was broken.
pub async fn live(seed: u64, rounds: u32, program: &Path) -> Result<Tally> {
    let backends = Backend::available();
    let choose = |number: u64| {
        let index = usize::try_from(number).unwrap_or(0) % backends.len();
        backends.get(index).copied().unwrap_or(Backend::Sqlite)
    };
    let chosen = (choose(seed), choose(seed / backends.len() as u64));
    let directory = tempfile::tempdir()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let upstream = place(chosen.0, directory.path(), &format!("{seed}_up"), &mut random).await?;
    let downstream = place(chosen.1, directory.path(), &format!("{seed}_down"), &mut random).await?;
    let mut life = Life {
        program,
        work: some_work(&mut random),
        random,
        downstream_backend: chosen.1,
        upstream: upstream.clone(),
        downstream: downstream.clone(),
        history: History::default(),
        tally: Tally { lives: 1, ..Tally::default() },
    };
    let lived = life.rounds(rounds).await;
    let work = life.work;
    let again = || {
        format!(
            "seed {seed} ({upstream:?}, {downstream:?}, {work:?}); again: cargo xtask faults --seed {seed} --rounds {rounds}"
        )
    };
    let lived = lived.with_context(again);
    if lived.is_err()
        && let Some(kept) = keep(directory)
    {
        eprint(&format!("the databases are kept: {kept}, {upstream:?}, {downstream:?}"));
    } else {
        upstream.delete().await?;
        downstream.delete().await?;
    }
    lived?;
    Ok(life.tally)
}

/// An empty database, half of them with hints, and half of them with tracking as in Python's version 9.1.
async fn place(backend: Backend, directory: &Path, name: &str, random: &mut fastrand::Rng) -> Result<Place> {
    let mut place = Place::create(backend, directory, name).await?;
    if random.bool() {
        place = place.with_hints();
    }
    if random.bool() {
        place.create_row_per_position().await?;
    }
    Ok(place)
}

/// Half of the processors process one topic, the others all.
fn some_work(random: &mut fastrand::Rng) -> (Kind, Option<usize>) {
    let kind = if random.bool() { Kind::Events } else { Kind::Rows };
    (kind, random.bool().then(|| random.usize(0..TOPICS.len())))
}

fn keep(directory: tempfile::TempDir) -> Option<String> {
    Some(directory.keep().display().to_string())
}

#[expect(clippy::print_stderr, reason = "whoever looks into a failure needs its databases")]
fn eprint(message: &str) {
    eprintln!("{message}");
}

impl Life<'_> {
    async fn rounds(&mut self, rounds: u32) -> Result<()> {
        for round in 1..=rounds {
            self.tally.rounds += 1;
            let messages = self.round(round).with_context(|| format!("round {round}"))?;
            self.hear(messages);
            self.look(round).await.with_context(|| format!("after round {round}"))?;
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
                _ => Role::Clients([1, 4, 16][self.random.usize(0..3)]),
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
            if child.burns_within(FUSE_BURNS)? {
                continue;
            }
            if is_stopped { child.stop() } else { child.kill()? }
        }
        for child in children {
            let (end, said) = child.end()?;
            match end {
                End::Killed => self.tally.killed += 1,
                End::Burnt => self.tally.burnt += 1,
                End::Stopped => {}
            }
            messages.extend(said);
        }
        Ok(messages)
    }

    fn job(&mut self, round: u32, number: u32, role: Role) -> Job {
        let mut points = match role {
            Role::Clients(_) => self.upstream.points(),
            Role::Processor(_, (Kind::Rows, _)) => self.downstream_backend.points_of_projectors().to_vec(),
            Role::Processor(_, (Kind::Events, _)) => self.downstream_backend.points_of_handlers().to_vec(),
        };
        if matches!(role, Role::Processor(..)) {
            points.push(HANDLER);
        }
        // Some points are passed often, and some seldom.
        let often = [1, 3, 20][self.random.usize(0..3)];
        let fuse = Plan {
            point: points[self.random.usize(0..points.len())].to_owned(),
            passing: self.random.i64(1..=often),
            delay: if self.random.bool() { 0 } else { self.random.u64(1..3_000) },
        };
        let fuse = (self.random.u8(0..4) > 0).then_some(fuse);
        let name = format!("r{round}p{number}");
        Job { name, seed: self.random.u32(..), round, upstream: self.upstream.clone(), role, fuse }
    }

    fn hear(&mut self, messages: impl IntoIterator<Item = Message>) {
        messages.into_iter().for_each(|message| self.history.hear(message));
    }

    /// Opens both databases as the next program would, and checks all that was promised.
    async fn look(&mut self, round: u32) -> Result<()> {
        let upstream = self.upstream.open(&Fuse::new(None)).await.context("the upstream does not open")?;
        self.go_on(round, &upstream).await?;
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
        if let Some(first) = violations.first() {
            bail!("{first} (and {} more broken promises)", violations.len() - 1);
        }
        es_core::Recorder::close(&upstream).await?;
        effects::check(&self.history.log, &self.downstream, self.work).await.context("in the downstream")?;
        self.count();
        Ok(())
    }

    /// The parent is a client, too: recording goes on.
    async fn go_on(&mut self, round: u32, upstream: &Recorder) -> Result<()> {
        let messages = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&messages);
        let tell = move |message| heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        let report = Arc::new(Report::new(format!("r{round}parent"), tell));
        let (_stop, stopped) = watch::channel(false);
        let client = Clients::new(upstream.clone(), report, round, self.random.u32(..), stopped);
        let answer = client.put_one().await?;
        ensure!(matches!(answer, Answer::Recorded(_)), "recording does not go on: {answer:?}");
        let messages = std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner));
        self.hear(messages);
        Ok(())
    }

    /// An undisturbed processor brings the effects of all that is left.
    async fn catch_up(&mut self) -> Result<()> {
        let fuse = Fuse::new(None);
        let upstream = self.upstream.open(&fuse).await?;
        let downstream = self.downstream.open(&fuse).await?;
        let end = upstream.max_notification_id().await?.unwrap_or(0);
        let (tell, stop) = watch::channel(false);
        let (place, work, seed) = (self.downstream.clone(), self.work, self.random.u64(..));
        let processing =
            tokio::spawn(async move { effects::process(upstream, &place, work, fuse, seed, stop).await });
        es_core::TrackingRecorderExt::wait(&downstream, effects::UPSTREAM, end, CATCH_UP).await?;
        tell.send_replace(true);
        processing.await??;
        let (effects, position) = effects::check(&self.history.log, &self.downstream, self.work).await?;
        ensure!(position == end, "the processor stopped at {position} instead of {end}");
        self.tally.effects = effects;
        Ok(es_core::Recorder::close(&downstream).await?)
    }

    fn count(&mut self) {
        let operations = &self.history.operations;
        let puts = operations.iter().filter(|operation| matches!(operation.call, Call::Put { .. }));
        let (mut acknowledged, mut conflicts, mut unanswered) = (0, 0, 0);
        for put in puts {
            match put.returned.as_ref().map(|(_, answer)| answer) {
                Some(Answer::Recorded(_)) => acknowledged += 1,
                Some(Answer::Conflict | Answer::TrackingConflict) => conflicts += 1,
                None => unanswered += 1,
                Some(_) => {}
            }
        }
        let (operations, events) = (operations.len(), self.history.log.len());
        self.tally = Tally { operations, acknowledged, conflicts, unanswered, events, ..self.tally };
    }
}

async fn read(upstream: &Recorder) -> Result<Vec<Recorded>> {
    let all = upstream.stream_notifications(NotificationSelection::new(usize::MAX));
    Ok(all.map_ok(|one| Recorded::read(&one)).try_collect().await?)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.lives += other.lives;
        self.rounds += other.rounds;
        self.processes += other.processes;
        self.killed += other.killed;
        self.burnt += other.burnt;
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.conflicts += other.conflicts;
        self.unanswered += other.unanswered;
        self.events += other.events;
        self.effects += other.effects;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} databases, {} rounds, {} processes ({} killed at a random moment, {} at a point), {} operations: \
             {} puts acknowledged, {} refused by a conflict, {} unanswered; {} events and {} effects found",
            self.lives,
            self.rounds,
            self.processes,
            self.killed,
            self.burnt,
            self.operations,
            self.acknowledged,
            self.conflicts,
            self.unanswered,
            self.events,
            self.effects
        )
    }
}

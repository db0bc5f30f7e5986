//! A campaign on a partitioned consumer: workers in several processes are killed, paused beyond their leases,
//! started and stopped, segments are split and merged, and after each round every notification must have had
//! its effect as its segment says.

use std::{collections::HashMap, fmt, ops::AddAssign, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use es_core::{
    AggregateRecorder, ApplicationRecorderExt, ConsumerError, HandlerError, NotificationBatch,
    NotificationConsumer, NotificationSelection, PersistenceError, ProcessRecorder, SegmentChange,
    SegmentRecorder, SegmentRecorderExt, Segments, StoredEvent,
};
use es_process::{Handler, HandlerConsumer, PartitionedProcessor, key_hash};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    child::{Job, Role},
    clients::stopped,
    effects::{self, Effects, Kind, UPSTREAM},
    history::{Event, Recorded},
    kill_point::{HANDLER, KillPoint, Plan},
    process::{Child, End},
    progress,
    test_database::{Backend, ProcessRecorder as AnyRecorder, Recorder, TestDatabase},
};

/// The number of rounds on one pair of databases.
pub const ROUNDS: u32 = 4;

/// The lease of workers that are paused for longer.
const LEASE: Duration = Duration::from_millis(250);

const SEGMENTS: u16 = 6;
const AGGREGATES: u64 = 12;
const MOST_WORKERS: usize = 6;

/// The time limit for a process to pause itself.
const PAUSE_WAIT: Duration = Duration::from_secs(60);

/// The time limit for undisturbed workers to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A defect of a worker, which the check must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Defect {
    /// Some notifications have no effect.
    Skip,
    /// Some notifications have two effects.
    Double,
    /// Effects are recorded apart from the position, so that a worker that has lost its segment records them.
    Unfenced,
}

/// The work of a worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Work {
    /// The kind of its effects. A defect needs events.
    pub kind: Kind,
    /// Its defect.
    pub defect: Option<Defect>,
    /// Its lease.
    pub lease: Duration,
}

/// Counts of a campaign.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Rounds.
    pub rounds: usize,
    /// Processes that were started.
    pub workers: usize,
    /// Those that were killed at a random moment.
    pub killed: usize,
    /// Those that killed themselves at a point, or shortly after it.
    pub self_killed: usize,
    /// Pauses beyond the lease.
    pub paused: usize,
    /// Segments that were split.
    pub splits: usize,
    /// Pairs of segments that were merged.
    pub merges: usize,
    /// The sum of the epochs of segments, which claims, splits and merges begin.
    pub epochs: i64,
    /// Effects at the end.
    pub effects: usize,
}

struct Campaign<'a> {
    program: &'a Path,
    random: fastrand::Rng,
    upstream: TestDatabase,
    downstream: TestDatabase,
    backend: Backend,
    kind: Kind,
    defect: Option<Defect>,
    log: Recorder,
    versions: HashMap<u64, i64>,
    tally: Tally,
}

/// Runs the campaign that follows from its seed.
///
/// # Errors
/// Says which promise was broken.
pub async fn run(seed: u64, rounds: u32, program: &Path, defect: Option<Defect>) -> Result<Tally> {
    let backends = Backend::available();
    let choose = |number: u64| {
        let index = usize::try_from(number).unwrap_or(0) % backends.len();
        backends.get(index).copied().unwrap_or(Backend::Sqlite)
    };
    // The one that has the segments changes with each seed.
    let (up, down) = (choose(seed / backends.len() as u64), choose(seed));
    let directory = tempfile::tempdir()?;
    let mut random = fastrand::Rng::with_seed(seed);
    let upstream = TestDatabase::create(up, directory.path(), &format!("{seed}_workers_up")).await?;
    let downstream = TestDatabase::create(down, directory.path(), &format!("{seed}_workers_down")).await?;
    let kind = if defect.is_some() || random.bool() { Kind::Events } else { Kind::Rows };
    let log = upstream.open(&KillPoint::new(None)).await?;
    let mut campaign = Campaign {
        program,
        random,
        upstream: upstream.clone(),
        downstream: downstream.clone(),
        backend: down,
        kind,
        defect,
        log: log.clone(),
        versions: HashMap::new(),
        tally: Tally::default(),
    };
    let outcome = campaign.rounds(seed, rounds).await;
    let tally = campaign.tally;
    es_core::Recorder::close(&log).await?;
    let outcome = outcome.with_context(|| {
        format!(
            "seed {seed} ({upstream:?}, {downstream:?}, {kind:?}); again: cargo xtask faults --workers --seed {seed} \
             --rounds {rounds}"
        )
    });
    if outcome.is_err() && defect.is_none() {
        let kept = directory.keep();
        return outcome
            .with_context(|| format!("the databases are kept: {}", kept.display()))
            .map(|()| tally);
    }
    upstream.delete().await?;
    downstream.delete().await?;
    outcome.map(|()| tally)
}

impl Campaign<'_> {
    async fn rounds(&mut self, seed: u64, rounds: u32) -> Result<()> {
        for round in 1..=rounds {
            self.tally.rounds += 1;
            progress::show(format_args!("seed {seed}, round {round} of {rounds}"));
            self.append().await?;
            match self.defect {
                Some(Defect::Unfenced) => self.paused_round(round).await,
                _ => self.round(round).await,
            }
            .with_context(|| format!("round {round}"))?;
            self.verify().await.with_context(|| format!("after round {round}"))?;
        }
        self.catch_up().await.context("at the end")
    }

    /// Starts workers, disturbs them for a while, and ends them.
    async fn round(&mut self, round: u32) -> Result<()> {
        let first = self.random.usize(2..=4);
        let mut workers = Vec::new();
        for number in 0..first {
            let plan = self.plan();
            workers.push(self.start(round, number, plan)?);
        }
        for _ in 0..self.random.usize(2..6) {
            thread::sleep(Duration::from_millis(self.random.u64(20..120)));
            match self.random.u8(0..5) {
                0 if workers.len() < MOST_WORKERS => {
                    let plan = self.plan();
                    workers.push(self.start(round, workers.len(), plan)?);
                }
                1 => self.append().await?,
                2 => {
                    let index = self.random.usize(0..workers.len());
                    if let Some(worker) = workers.get_mut(index) {
                        self.pause(worker)?;
                    }
                }
                3 => self.repartition().await?,
                _ => {
                    let index = self.random.usize(0..workers.len());
                    if let Some(worker) = workers.get_mut(index) {
                        worker.kill()?;
                    }
                }
            }
        }
        for worker in &mut workers {
            worker.resume()?;
            if self.random.bool() { worker.kill()? } else { worker.stop() }
        }
        self.end(workers)
    }

    /// Has one worker pause itself in a handler until others have processed everything.
    async fn paused_round(&mut self, round: u32) -> Result<()> {
        let mut paused = self.start_paused(round)?;
        self.tally.paused += 1;
        let mut other = self.start(round, 1, None)?;
        self.caught_up().await?;
        paused.resume()?;
        other.stop();
        paused.stop();
        self.end(vec![paused, other])
    }

    /// Starts a worker that pauses itself in its first handler.
    fn start_paused(&mut self, round: u32) -> Result<Child> {
        loop {
            let plan = Plan { point: HANDLER.to_owned(), passing: 1, delay: 0, pauses: true };
            let mut paused = self.start(round, 0, Some(plan))?;
            if !paused.pauses_itself_within(PAUSE_WAIT)? {
                bail!("the worker does not reach its handler");
            }
            if !self.downstream.is_locked()? {
                return Ok(paused);
            }
            // It renews its lease in the same moment. On SQLite, all others would wait for its lock.
            paused.kill()?;
            self.end(vec![paused])?;
        }
    }

    /// Pauses a worker until its lease is over.
    fn pause(&mut self, worker: &mut Child) -> Result<()> {
        worker.pause()?;
        thread::sleep(LEASE + Duration::from_millis(self.random.u64(0..150)));
        worker.resume()?;
        self.tally.paused += 1;
        Ok(())
    }

    /// Splits or merges a segment, unless its position is being recorded or its neighbour has another one.
    async fn repartition(&mut self) -> Result<()> {
        let segments = segments(&self.downstream).await?.segments;
        let Some(first_hash) = self.random.choice(&segments).map(|segment| segment.first_hash) else {
            return Ok(());
        };
        let is_last = segments.last().is_some_and(|last| last.first_hash == first_hash);
        let is_merge = segments.len() > usize::from(SEGMENTS) && !is_last;
        let change = match is_merge {
            true => SegmentChange::Merge { first_hash },
            false => SegmentChange::Split { first_hash },
        };
        let changed = match self.downstream.open_process(KillPoint::new(None), true).await? {
            AnyRecorder::Sqlite(recorder) => recorder.change_segments(UPSTREAM, change).await,
            AnyRecorder::Postgres(recorder) => recorder.change_segments(UPSTREAM, change).await,
        };
        match changed {
            Ok(_) if is_merge => self.tally.merges += 1,
            Ok(_) => self.tally.splits += 1,
            Err(error) => ensure!(error.is_transient(), error),
        }
        Ok(())
    }

    fn end(&mut self, workers: Vec<Child>) -> Result<()> {
        for worker in workers {
            match worker.end()?.0 {
                End::Killed => self.tally.killed += 1,
                End::SelfKilled => self.tally.self_killed += 1,
                End::Stopped => {}
            }
        }
        Ok(())
    }

    /// Returns the point at which a worker is killed, or pauses itself until it is resumed at the end.
    fn plan(&mut self) -> Option<Plan> {
        let mut points = match self.kind {
            Kind::Rows => self.backend.points_of_projectors().to_vec(),
            Kind::Events => self.backend.points_of_handlers().to_vec(),
        };
        points.push(HANDLER);
        let pauses = self.random.u8(0..4) == 0;
        let point = if pauses { HANDLER } else { points[self.random.usize(0..points.len())] };
        let plan = Plan {
            point: point.to_owned(),
            passing: self.random.i64(1..=30),
            delay: if self.random.bool() { 0 } else { self.random.u64(1..3_000) },
            pauses,
        };
        (self.random.u8(0..3) > 0).then_some(plan)
    }

    fn start(&mut self, round: u32, number: usize, kill_point: Option<Plan>) -> Result<Child> {
        let work = Work { kind: self.kind, defect: self.defect, lease: LEASE };
        let job = Job {
            name: format!("r{round}w{number}"),
            seed: self.random.u32(..),
            round,
            upstream: self.upstream.clone(),
            role: Role::Worker(self.downstream.clone(), work),
            kill_point,
        };
        self.tally.workers += 1;
        let mut worker = Child::spawn(self.program, &job)?;
        worker.wait_until_ready()?;
        Ok(worker)
    }

    async fn append(&mut self) -> Result<()> {
        for _ in 0..self.random.usize(5..20) {
            let mut events: Vec<StoredEvent> = Vec::new();
            for _ in 0..self.random.usize(1..4) {
                let aggregate = self.random.u64(0..AGGREGATES);
                let version = self.versions.entry(aggregate).or_default();
                *version += 1;
                let event = Event { aggregate, version: *version, put: "parent".to_owned(), index: 0 };
                events.push(event.stored(0));
            }
            self.log.insert_events(events).await?;
        }
        Ok(())
    }

    /// Checks all that was promised, while no worker runs.
    async fn verify(&mut self) -> Result<()> {
        let all = self.log.stream_notifications(NotificationSelection::new(usize::MAX));
        let log: Vec<Recorded> = all.map_ok(|one| Recorded::read(&one)).try_collect().await?;
        let segments = segments(&self.downstream).await?;
        self.tally.epochs = segments.segments.iter().map(|segment| segment.epoch).sum();
        let effects = effects::read(&self.downstream, self.kind).await?;
        self.tally.effects = effects.len();
        check(&log, &segments, &effects)
    }

    /// An undisturbed worker brings the effects of all that is left.
    async fn catch_up(&mut self) -> Result<()> {
        self.append().await?;
        let work = Work { kind: self.kind, defect: None, lease: Duration::from_secs(10) };
        let (stopper, stop) = watch::channel(false);
        let (upstream, downstream) = (self.log.clone(), self.downstream.clone());
        let working =
            tokio::spawn(
                async move { process(upstream, &downstream, work, KillPoint::new(None), stop).await },
            );
        let caught_up = self.caught_up().await;
        let left = segments(&self.downstream).await?;
        stopper.send_replace(true);
        working.await??;
        caught_up.with_context(|| format!("{left:?}"))?;
        self.verify().await
    }

    async fn caught_up(&self) -> Result<()> {
        let end = es_core::ApplicationRecorder::max_notification_id(&self.log).await?.unwrap_or(0);
        match self.downstream.open_process(KillPoint::new(None), true).await? {
            AnyRecorder::Sqlite(recorder) => recorder.wait_for_segments(UPSTREAM, end, CATCH_UP).await?,
            AnyRecorder::Postgres(recorder) => recorder.wait_for_segments(UPSTREAM, end, CATCH_UP).await?,
        }
        Ok(())
    }
}

async fn segments(database: &TestDatabase) -> Result<Segments> {
    Ok(match database.open_process(KillPoint::new(None), true).await? {
        AnyRecorder::Sqlite(recorder) => recorder.segments(UPSTREAM).await?,
        AnyRecorder::Postgres(recorder) => recorder.segments(UPSTREAM).await?,
    })
}

/// Works on segments until the stop signal.
///
/// # Errors
/// When the worker stops by itself.
pub async fn process(
    upstream: Recorder,
    database: &TestDatabase,
    work: Work,
    kill_point: KillPoint,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let effects = Effects::new(database, kill_point.clone());
    match (work.kind, database.open_process(kill_point, true).await?) {
        (Kind::Events, AnyRecorder::Sqlite(recorder)) => {
            run_events(upstream, recorder, effects, work, stop).await
        }
        (Kind::Events, AnyRecorder::Postgres(recorder)) => {
            run_events(upstream, recorder, effects, work, stop).await
        }
        (Kind::Rows, AnyRecorder::Sqlite(recorder)) => {
            let projecting = recorder.clone();
            let worker = PartitionedProcessor::new(UPSTREAM, upstream, recorder, move |_| {
                let (recorder, effects) = (projecting.clone(), effects.clone());
                async move { recorder.projector(effects).await }
            });
            run_worker(worker, work, stop).await
        }
        (Kind::Rows, AnyRecorder::Postgres(recorder)) => {
            let projecting = recorder.clone();
            let worker = PartitionedProcessor::new(UPSTREAM, upstream, recorder, move |_| {
                let (recorder, effects) = (projecting.clone(), effects.clone());
                async move { recorder.projector(effects).await }
            });
            run_worker(worker, work, stop).await
        }
    }
}

async fn run_events<R>(
    upstream: Recorder,
    recorder: R,
    effects: Effects,
    work: Work,
    stop: watch::Receiver<bool>,
) -> Result<()>
where
    R: ProcessRecorder + SegmentRecorder + Clone + 'static,
{
    let defect = work.defect;
    let effects = Defective { effects, defect };
    let consumers = recorder.clone();
    if defect == Some(Defect::Unfenced) {
        let worker = PartitionedProcessor::new(UPSTREAM, upstream, recorder, move |_| {
            let consumer = Unfenced { recorder: consumers.clone(), effects: effects.clone() };
            async move { Ok(consumer) }
        });
        return run_worker(worker, work, stop).await;
    }
    let worker = PartitionedProcessor::new(UPSTREAM, upstream, recorder, move |_| {
        let consumer = HandlerConsumer::new(consumers.clone(), effects.clone());
        async move { Ok(consumer) }
    });
    run_worker(worker, work, stop).await
}

async fn run_worker<L, C>(
    worker: PartitionedProcessor<Recorder, L, C>,
    work: Work,
    stop: watch::Receiver<bool>,
) -> Result<()>
where
    L: SegmentRecorder,
    C: NotificationConsumer + 'static,
{
    // With one segment, a worker that is killed in its first handler has had no effect.
    let segments = if work.defect == Some(Defect::Unfenced) { 1 } else { SEGMENTS };
    let segments = segments.try_into()?;
    let mut worker = worker
        .segments(segments)
        .lease(work.lease)
        .processors(|processor| processor.poll_interval(Duration::from_millis(50)));
    let handle = worker.stop_handle();
    let mut run = std::pin::pin!(worker.run());
    tokio::select! {
        ended = &mut run => ended?,
        () = stopped(stop) => {
            handle.stop();
            run.await?;
        }
    }
    Ok(())
}

/// Has effects with a defect.
#[derive(Clone, Debug)]
struct Defective {
    effects: Effects,
    defect: Option<Defect>,
}

impl Handler for Defective {
    type Error = std::convert::Infallible;

    async fn handle(&mut self, notification: es_core::Notification) -> Result<Vec<StoredEvent>, Self::Error> {
        let is_chosen = notification.id % 5 == 0;
        let mut effects = self.effects.handle(notification.clone()).await?;
        match self.defect {
            Some(Defect::Skip) if is_chosen => effects.clear(),
            Some(Defect::Double) if is_chosen => effects.extend(self.effects.handle(notification).await?),
            _ => {}
        }
        Ok(effects)
    }
}

/// Records effects, and then the position.
struct Unfenced<R> {
    recorder: R,
    effects: Defective,
}

impl<R: ProcessRecorder> NotificationConsumer for Unfenced<R> {
    type Recorder = R;

    fn recorder(&self) -> &R {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        for notification in batch.notifications {
            let effects = self.effects.handle(notification.clone()).await;
            let effects = effects.map_err(|error| PersistenceError::internal(error.to_string()))?;
            self.recorder.insert_events(effects).await?;
        }
        let handled = batch.notifications.len();
        self.recorder.insert_tracking(batch.tracking(handled)?).await?;
        Ok(handled)
    }

    async fn park(&mut self, _: NotificationBatch<'_>, error: HandlerError) -> Result<(), ConsumerError> {
        Err(ConsumerError::Handler { index: 0, error })
    }
}

/// Checks that each notification up to the position of its segment had its effect once, those after it none,
/// and those of one aggregate in order.
///
/// # Errors
/// Says which one is amiss.
pub fn check(log: &[Recorded], segments: &Segments, effects: &[i64]) -> Result<()> {
    let mut counts: HashMap<i64, usize> = HashMap::new();
    effects.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    for Recorded { id, event } in log {
        let key = es_core::uuid::Uuid::from_u128(event.aggregate.into());
        let segment = segments.of_hash(key_hash(key.as_bytes()));
        let position = segment.map_or(0, |segment| segment.position);
        let expected = usize::from(*id <= position);
        let found = counts.get(id).copied().unwrap_or(0);
        ensure!(
            found == expected,
            "notification {id} of aggregate {} had {found} effects instead of {expected}: its segment is {segment:?}",
            event.aggregate
        );
    }
    let aggregates: HashMap<i64, u64> = log.iter().map(|one| (one.id, one.event.aggregate)).collect();
    let mut last: HashMap<u64, i64> = HashMap::new();
    for id in effects {
        let aggregate =
            aggregates.get(id).with_context(|| format!("effect of notification {id}, which is not there"))?;
        let before = last.insert(*aggregate, *id);
        ensure!(before < Some(*id), "notification {id} had its effect after {before:?} of its aggregate");
    }
    Ok(())
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.workers += other.workers;
        self.killed += other.killed;
        self.self_killed += other.self_killed;
        self.paused += other.paused;
        self.splits += other.splits;
        self.merges += other.merges;
        self.epochs += other.epochs;
        self.effects += other.effects;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {} workers ({} killed at a random moment, {} at a point), {} pauses beyond the lease, {} \
             splits, {} merges, {} epochs; {} effects found",
            self.rounds,
            self.workers,
            self.killed,
            self.self_killed,
            self.paused,
            self.splits,
            self.merges,
            self.epochs,
            self.effects
        )
    }
}

#[cfg(test)]
mod tests {
    use es_core::Segment;

    use super::*;

    #[test]
    fn skips_doubles_and_disorder_are_found() {
        let log: Vec<Recorded> = (1..=4)
            .map(|id| {
                let aggregate = u64::from(id % 2 == 0);
                Recorded { id, event: Event { aggregate, version: id, put: String::new(), index: 0 } }
            })
            .collect();
        let all = Segments::new(UPSTREAM, vec![Segment::new(0, i64::MAX, 1, None, 4)], Vec::new());
        assert!(check(&log, &all, &[2, 1, 4, 3]).is_ok());
        for effects in [&[1, 2, 3][..], &[1, 2, 3, 4, 4], &[3, 2, 1, 4], &[1, 2, 3, 4, 5]] {
            assert!(check(&log, &all, effects).is_err(), "{effects:?}");
        }
        let behind = Segments::new(UPSTREAM, vec![Segment::new(0, i64::MAX, 1, None, 2)], Vec::new());
        assert!(check(&log, &behind, &[1, 2]).is_ok());
        assert!(check(&log, &behind, &[1, 2, 3]).is_err());
    }
}

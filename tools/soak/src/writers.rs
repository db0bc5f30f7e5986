//! Those who write: alone, many at a time, in batches, against each other, and from recorders of their
//! own. Each pauses, so that the load is bounded: some 350 events a second together.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use es_core::{AggregateRecorder, EventRange};
use es_faults::{kill_point::KillPoint, test_database::Recorder};
use futures_util::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    ledger::{self, AGGREGATES},
    meters::Latencies,
    workload::Workload,
};

/// Aggregates that several write at the same time.
const HOT: usize = 2;
/// The one that visiting recorders write.
const VISITED: usize = HOT;
/// The first of those that belong to one writer each.
const OWNED: usize = HOT + 1;

const SINGLES: usize = 8;
const RIVALS: usize = 4;
/// Single writers, one who writes groups and one who writes batches.
const OWNERS: usize = SINGLES + 2;

/// The number of concurrent inserts.
const GROUP: usize = 32;
/// The size of a batch: so many events of each of so many aggregates.
const BATCH: (usize, i64) = (4, 25);

/// A state that is larger than what fits beside a row on either datastore, once in so many events.
const LARGE: (usize, u32) = (100 << 10, 200);

/// Starts them all; they end when the workload says so.
pub fn spawn(workload: &Arc<Workload>, tasks: &mut JoinSet<Result<()>>) {
    for owner in 0..SINGLES {
        tasks.spawn(write_alone(Arc::clone(workload), owner));
    }
    tasks.spawn(write_groups(Arc::clone(workload), SINGLES));
    tasks.spawn(write_batches(Arc::clone(workload), SINGLES + 1));
    for rival in 0..RIVALS {
        tasks.spawn(write_against_others(Arc::clone(workload), rival % HOT));
    }
    tasks.spawn(visit(Arc::clone(workload)));
}

async fn write_alone(workload: Arc<Workload>, owner: usize) -> Result<()> {
    while workload.continues() {
        let padding = if fastrand::u32(0..LARGE.1) == 0 { LARGE.0 } else { fastrand::usize(0..300) };
        put(&workload, owned(owner), padding).await?;
        pause(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn write_groups(workload: Arc<Workload>, owner: usize) -> Result<()> {
    while workload.continues() {
        let mut aggregates: Vec<usize> = (0..GROUP).map(|_| owned(owner)).collect();
        // Of one aggregate, only one version is the next.
        aggregates.sort_unstable();
        aggregates.dedup();
        try_join_all(aggregates.into_iter().map(|aggregate| put(&workload, aggregate, 100))).await?;
        pause(Duration::from_millis(250)).await;
    }
    Ok(())
}

async fn write_batches(workload: Arc<Workload>, owner: usize) -> Result<()> {
    while workload.continues() {
        let mut aggregates: Vec<usize> = (0..BATCH.0).map(|_| owned(owner)).collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        let places: Vec<_> =
            aggregates.into_iter().map(|aggregate| workload.next(aggregate, BATCH.1)).collect();
        let is_recorded = workload.insert(&workload.recorder, &places, 100, &workload.meters.batch).await?;
        ensure!(is_recorded, "a batch conflicts without a concurrent writer");
        pause(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Reads the next version and writes it, again after each conflict.
async fn write_against_others(workload: Arc<Workload>, aggregate: usize) -> Result<()> {
    while workload.continues() {
        loop {
            let newest = EventRange::all().desc().limit(1);
            let newest = workload.recorder.select_events(ledger::originator_id(aggregate), newest).await?;
            let version = newest.first().map_or(0, |newest| newest.originator_version);
            let next = [(aggregate, version + 1, 1)];
            if workload.insert(&workload.recorder, &next, 50, &workload.meters.insert).await? {
                break;
            }
            workload.meters.conflicts.add(1);
        }
        pause(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Opens a recorder beside the others, uses it, and closes it.
async fn visit(workload: Arc<Workload>) -> Result<()> {
    while workload.continues() {
        let recorder = workload.database.open(&KillPoint::new(None)).await?;
        for _ in 0..fastrand::u32(1..4) {
            let next = workload.next(VISITED, 1);
            let is_recorded = workload.insert(&recorder, &[next], 50, &workload.meters.insert).await?;
            ensure!(is_recorded, "a visitor conflicts without a concurrent writer");
        }
        let all = recorder.select_events(ledger::originator_id(VISITED), EventRange::all()).await?;
        ensure!(
            all.len() as i64 == workload.ledger.version(VISITED),
            "a visitor found {} events of its {}",
            all.len(),
            workload.ledger.version(VISITED)
        );
        es_core::Recorder::close(&recorder).await?;
        workload.meters.recorders.add(1);
        pause(Duration::from_secs(2)).await;
    }
    Ok(())
}

/// Puts the next event of an aggregate with a single writer.
async fn put(workload: &Workload, aggregate: usize, padding: usize) -> Result<()> {
    let next = [workload.next(aggregate, 1)];
    let is_recorded = workload.insert(&workload.recorder, &next, padding, &workload.meters.insert).await?;
    ensure!(is_recorded, "aggregate {aggregate} conflicts without a concurrent writer");
    Ok(())
}

/// One of an owner's aggregates.
fn owned(owner: usize) -> usize {
    let each = (AGGREGATES - OWNED) / OWNERS;
    OWNED + owner * each + fastrand::usize(0..each)
}

/// Waits for about so long: between nothing and twice as long.
pub(crate) async fn pause(about: Duration) {
    sleep(about.mul_f64(fastrand::f64() * 2.0)).await;
}

impl Workload {
    /// The next so many places of an aggregate: its number, the first version, and how many.
    fn next(&self, aggregate: usize, events: i64) -> (usize, i64, i64) {
        (aggregate, self.ledger.version(aggregate) + 1, events)
    }

    /// Inserts events at places as one, again after failures that may pass; false after a conflict.
    async fn insert(
        &self,
        recorder: &Recorder,
        places: &[(usize, i64, i64)],
        padding: usize,
        latencies: &Latencies,
    ) -> Result<bool> {
        let began = Instant::now();
        let mut events = Vec::new();
        for (aggregate, first, count) in places.iter().copied() {
            events.extend((first..first + count).map(|version| ledger::event(aggregate, version, padding)));
        }
        let ids = loop {
            match recorder.insert_events(events.clone()).await {
                Ok(ids) => break ids,
                Err(error) if error.is_conflict() => return Ok(false),
                Err(error) if error.is_transient() && !error.is_outcome_unknown() => {
                    self.meters.refused.add(1);
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        latencies.record(began.elapsed());
        self.meters.recorded.add(ids.len());
        let mut ids = ids.into_iter();
        for (aggregate, first, count) in places.iter().copied() {
            let Some(last) = ids.by_ref().take(usize::try_from(count)?).last() else {
                bail!("not every event has an id");
            };
            self.acknowledged(aggregate, first + count - 1, last);
        }
        Ok(true)
    }

    fn acknowledged(&self, aggregate: usize, version: i64, id: i64) {
        self.ledger.acknowledged(aggregate, version, id);
        self.meters.written.fetch_max(id, std::sync::atomic::Ordering::Relaxed);
    }
}

//! Readers: a steady subscriber, others that come and go, and tasks that load, page and stream.

use std::{
    num::NonZeroUsize,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, EventRange, Notification,
    NotificationSelection,
};
use futures_util::TryStreamExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    ledger::{self, AGGREGATES},
    sequence_checker::SequenceChecker,
    workload::Workload,
    writers::pause,
};

const LOADERS: usize = 2;

/// The number of newest events of an aggregate that are loaded.
const LOADED: i64 = 50;

/// A subscriber that does not leave.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The lifetime of a short subscription, in milliseconds.
const STAY: std::ops::Range<u64> = 10..4_000;

/// Starts them all; they end when they have reached the end of the log.
pub fn spawn(workload: &Arc<Workload>, tasks: &mut JoinSet<Result<()>>) {
    tasks.spawn(follow_steadily(Arc::clone(workload)));
    tasks.spawn(come_and_go(Arc::clone(workload), None));
    tasks.spawn(come_and_go(Arc::clone(workload), Some(1)));
    tasks.spawn(stream_and_go(Arc::clone(workload)));
    for _ in 0..LOADERS {
        tasks.spawn(load(Arc::clone(workload)));
    }
    tasks.spawn(page(Arc::clone(workload)));
    tasks.spawn(stream(Arc::clone(workload)));
}

/// Follows by one subscription from the beginning to the end.
async fn follow_steadily(workload: Arc<Workload>) -> Result<()> {
    let mut seen = SequenceChecker::from_beginning();
    let take = |notifications: &[Notification], position| {
        for notification in notifications {
            workload.meters.delivery.record(ledger::age(notification));
        }
        workload.meters.followed.fetch_max(position, Ordering::Relaxed);
    };
    subscribe(&workload, &mut seen, None, FOR_EVER, take).await?;
    seen.check(&workload.ledger, None)
}

/// Follows by many subscriptions, each of which begins where the one before was dropped.
async fn come_and_go(workload: Arc<Workload>, topic: Option<usize>) -> Result<()> {
    let mut seen = SequenceChecker::from_beginning();
    while !workload.ends_at(seen.position()) {
        let stay = Duration::from_millis(fastrand::u64(STAY));
        subscribe(&workload, &mut seen, topic, stay, |_, _| {}).await?;
        pause(Duration::from_millis(300)).await;
    }
    seen.check(&workload.ledger, topic)
}

/// Follows by a subscription until it has reached the end, or for so long.
async fn subscribe(
    workload: &Workload,
    seen: &mut SequenceChecker,
    topic: Option<usize>,
    stay: Duration,
    mut take: impl FnMut(&[Notification], i64),
) -> Result<()> {
    workload.meters.subscriptions.add(1);
    let topics = topic.map(ledger::topic);
    let mut subscription =
        workload.recorder.subscribe(seen.position(), topics.as_slice()).page_size(page_size());
    let mut stay = pin!(sleep(stay));
    let mut ended = pin!(workload.ended());
    let mut end = i64::MAX;
    while seen.position() < end {
        let page = tokio::select! {
            page = subscription.next_page() => page?,
            () = &mut stay => return Ok(()),
            last = &mut ended, if end == i64::MAX => { end = last; continue }
        };
        let Some(page) = page else { anyhow::bail!("a subscription ended although nothing was closed") };
        for notification in &page.notifications {
            seen.see(notification)?;
        }
        seen.reach(page.position);
        workload.meters.read.add(page.notifications.len());
        take(&page.notifications, page.position);
    }
    Ok(())
}

/// Follows by subscriptions that are read as streams, and are dropped in the middle of a page.
async fn stream_and_go(workload: Arc<Workload>) -> Result<()> {
    let mut seen = SequenceChecker::from_beginning();
    while !workload.ends_at(seen.position()) {
        workload.meters.subscriptions.add(1);
        let subscription = workload.recorder.subscribe(seen.position(), []).page_size(page_size());
        let mut stream = pin!(subscription.into_stream());
        let mut stay = pin!(sleep(Duration::from_millis(fastrand::u64(STAY))));
        for _ in 0..fastrand::usize(1..10_000) {
            let next = tokio::select! {
                next = stream.try_next() => next?,
                () = &mut stay => break,
            };
            let Some(next) = next else { anyhow::bail!("a stream ended although nothing was closed") };
            seen.see(&next)?;
            workload.meters.read.add(1);
        }
    }
    seen.check(&workload.ledger, None)
}

/// Loads the newest events of aggregates: at least what was acknowledged before.
async fn load(workload: Arc<Workload>) -> Result<()> {
    while workload.continues() {
        let aggregate = fastrand::usize(0..AGGREGATES);
        let acknowledged = workload.ledger.version(aggregate);
        let first = (acknowledged - LOADED).max(0);
        let began = Instant::now();
        let range = EventRange::all().gt(first);
        let events = workload.recorder.select_events(ledger::originator_id(aggregate), range).await?;
        workload.meters.load.record(began.elapsed());
        let versions = events.iter().map(|event| event.originator_version);
        ensure!(
            versions.eq(first + 1..=first + events.len() as i64),
            "versions of {aggregate} are not contiguous"
        );
        ensure!(
            first + events.len() as i64 >= acknowledged,
            "of aggregate {aggregate}, version {acknowledged} was acknowledged and is not there"
        );
        pause(Duration::from_millis(50)).await;
    }
    workload.ended().await;
    Ok(())
}

/// Selects pages from anywhere.
async fn page(workload: Arc<Workload>) -> Result<()> {
    while workload.continues() {
        let selection = NotificationSelection::new(fastrand::usize(1..1_000));
        let mut seen = SequenceChecker::after(anywhere(&workload));
        for notification in workload.recorder.select_notifications(selection.after(seen.position())).await? {
            seen.see(&notification)?;
            workload.meters.read.add(1);
        }
        pause(Duration::from_millis(200)).await;
    }
    workload.ended().await;
    Ok(())
}

/// Streams from anywhere, and does not always read to the end.
async fn stream(workload: Arc<Workload>) -> Result<()> {
    while workload.continues() {
        let mut seen = SequenceChecker::after(anywhere(&workload));
        let everything = NotificationSelection::new(usize::MAX).after(seen.position());
        let mut stream = pin!(workload.recorder.stream_notifications_by(page_size(), everything));
        for _ in 0..fastrand::usize(1..10_000) {
            let Some(next) = stream.try_next().await? else { break };
            seen.see(&next)?;
            workload.meters.read.add(1);
        }
        pause(Duration::from_secs(1)).await;
    }
    workload.ended().await;
    Ok(())
}

fn anywhere(workload: &Workload) -> i64 {
    fastrand::i64(0..=workload.ledger.last_id())
}

fn page_size() -> NonZeroUsize {
    NonZeroUsize::new(fastrand::usize(50..1_000)).unwrap_or(NonZeroUsize::MIN)
}

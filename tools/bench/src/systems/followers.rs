//! Consumers of our recorders: subscriptions and processors.

use std::{
    collections::HashMap,
    convert::Infallible,
    hint::black_box,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use es_core::{
    ApplicationRecorder, ApplicationRecorderExt, Notification, ProcessRecorder, StoredEvent, Topic,
    TrackingRecorderExt,
};
use es_process::Processor;
use futures_util::future::join_all;
use uuid::Uuid;

use super::recorder::RecorderStore;
use crate::{
    data::{STATE_SIZE, Supply},
    system::{BoxFuture, Latency, Sample, System},
    workload::{Work, do_work},
};

/// A topic that no event has.
const UNUSED_TOPIC: Topic = Topic::from_static("bank:Account.Nothing");

/// Creates a recorder on an empty datastore.
pub(crate) type CreateRecorder<R> = Arc<dyn Fn() -> BoxFuture<'static, R> + Send + Sync>;

/// The time for a thousand subscribers to read the existing events.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// The timeout, far longer than any measurement.
pub(super) const TIMEOUT: Duration = Duration::from_secs(600);

/// A subscription that reads from the beginning to the end.
pub(crate) struct CatchUp<R> {
    name: &'static str,
    recorder: R,
    page_size: NonZeroUsize,
    events: usize,
}

impl<R: ApplicationRecorder + Clone + 'static> CatchUp<R> {
    pub(crate) fn boxed(
        name: &'static str,
        recorder: R,
        page_size: NonZeroUsize,
        events: usize,
    ) -> Box<dyn System> {
        Box::new(Self { name, recorder, page_size, events })
    }
}

impl<R: ApplicationRecorder + Clone + 'static> System for CatchUp<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        let mut subscription = self.recorder.subscribe(0, []).page_size(self.page_size);
        let events = self.events;
        Box::pin(async move {
            let reading = tokio::spawn(async move {
                let start = Instant::now();
                let mut seen = 0;
                while seen < events {
                    let page = black_box(subscription.next_page().await?);
                    seen += page.map_or(events, |page| page.notifications.len());
                }
                Ok::<_, anyhow::Error>(start.elapsed())
            });
            Ok(sample(events, reading.await??, None))
        })
    }
}

/// The time from the acknowledgement of a commit to the delivery of its events to a subscriber.
pub(crate) struct DeliveryLatency<R> {
    name: &'static str,
    recorder: R,
    writers: usize,
    commits: usize,
    supply: Supply,
}

impl<R: ApplicationRecorder + Clone + 'static> DeliveryLatency<R> {
    pub(crate) fn boxed(name: &'static str, recorder: R, writers: usize, commits: usize) -> Box<dyn System> {
        Box::new(Self { name, recorder, writers, commits, supply: Supply::default() })
    }

    async fn measure(&self) -> Result<Sample> {
        let (events, position) = (self.writers * self.commits, self.recorder.max_notification_id().await?);
        let mut subscription = self.recorder.subscribe(position.unwrap_or(0), []);
        let start = Instant::now();
        let delivering = tokio::spawn(async move {
            let mut delivered = Vec::with_capacity(events);
            while delivered.len() < events {
                let Some(page) = subscription.next_page().await? else { break };
                let now = Instant::now();
                delivered.extend(page.notifications.iter().map(|notification| (notification.id, now)));
            }
            Ok::<_, anyhow::Error>(delivered)
        });
        let writers = (0..self.writers).map(|_| {
            let batches: Vec<_> = (0..self.commits).map(|_| self.supply.events(1, STATE_SIZE)).collect();
            tokio::spawn(acknowledge(self.recorder.clone(), batches))
        });
        let mut acknowledged = HashMap::with_capacity(events);
        for writer in join_all(writers).await {
            acknowledged.extend(writer??);
        }
        let delivered = delivering.await??;
        let elapsed = start.elapsed();
        ensure!(delivered.len() == events, "{} events were delivered, not {events}", delivered.len());
        // An event delivered before the acknowledgement arrived counts as no time.
        let latencies = delivered.iter().filter_map(|(id, at)| {
            acknowledged.get(id).map(|acknowledged| at.saturating_duration_since(*acknowledged).as_secs_f64())
        });
        Ok(sample(events, elapsed, Latency::of(latencies.collect())))
    }
}

/// Commits the batches one after the other, and returns the time of acknowledgement of each notification.
async fn acknowledge<R: ApplicationRecorder>(
    recorder: R,
    batches: Vec<Vec<StoredEvent>>,
) -> Result<Vec<(i64, Instant)>> {
    let mut acknowledged = Vec::with_capacity(batches.len());
    for batch in batches {
        let ids = recorder.insert_events(batch).await?;
        let now = Instant::now();
        acknowledged.extend(ids.into_iter().map(|id| (id, now)));
    }
    Ok(acknowledged)
}

impl<R: ApplicationRecorder + Clone + 'static> System for DeliveryLatency<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(self.measure())
    }
}

/// A processor whose handler returns one event for each notification, into a new downstream each round.
pub(crate) struct Processing<R> {
    name: &'static str,
    upstream: R,
    create: CreateRecorder<R>,
    batch_size: NonZeroUsize,
    events: usize,
}

impl<R: ProcessRecorder + Clone + 'static> Processing<R> {
    pub(crate) fn boxed(
        name: &'static str,
        upstream: R,
        create: CreateRecorder<R>,
        batch_size: NonZeroUsize,
        events: usize,
    ) -> Box<dyn System> {
        Box::new(Self { name, upstream, create, batch_size, events })
    }

    async fn measure(&self) -> Result<Sample> {
        let downstream = (self.create)().await?;
        let last = self.events as i64;
        let mut processor = Processor::new("bank", self.upstream.clone(), downstream.clone(), notice)
            .batch_size(self.batch_size);
        let start = Instant::now();
        let running = tokio::spawn(async move { processor.run().await });
        downstream.wait("bank", last, TIMEOUT).await?;
        let elapsed = start.elapsed();
        running.abort();
        Ok(sample(self.events, elapsed, None))
    }
}

impl<R: ProcessRecorder + Clone + 'static> System for Processing<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(self.measure())
    }
}

pub(super) async fn notice(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    let originator_id = Uuid::from_u128(!notification.event.originator_id.as_u128());
    Ok(vec![StoredEvent { originator_id, ..notification.event }])
}

/// Commits while many subscribers wait for other events.
pub(crate) struct IdleSubscribers<R> {
    name: &'static str,
    recorder: R,
    store: Arc<RecorderStore<R>>,
    subscribers: usize,
    work: Work,
    supply: Supply,
}

impl<R: ApplicationRecorder + Clone + 'static> IdleSubscribers<R> {
    pub(crate) fn boxed(
        name: &'static str,
        recorder: R,
        subscribers: usize,
        writers: usize,
        commits: usize,
    ) -> Box<dyn System> {
        let work = Work::Append { tasks: writers, commits, events: 1, size: STATE_SIZE };
        let store = Arc::new(RecorderStore(recorder.clone()));
        Box::new(Self { name, recorder, store, subscribers, work, supply: Supply::default() })
    }

    async fn measure(&self) -> Result<Sample> {
        let position = self.recorder.max_notification_id().await?.unwrap_or(0);
        let subscribers: Vec<_> = (0..self.subscribers)
            .map(|_| {
                let mut subscription =
                    self.recorder.subscribe(position, [UNUSED_TOPIC]).poll_interval(TIMEOUT);
                tokio::spawn(async move { while let Ok(Some(_)) = subscription.next_page().await {} })
            })
            .collect();
        // Each reads the existing events once. Only the cost of waiting subscribers is measured.
        tokio::time::sleep(SETTLE_TIME).await;
        let sample = do_work(&self.store, &self.work, &self.supply).await;
        for subscriber in subscribers {
            subscriber.abort();
            // The task was aborted, which is no failure.
            let _ = subscriber.await;
        }
        sample
    }
}

impl<R: ApplicationRecorder + Clone + 'static> System for IdleSubscribers<R> {
    fn name(&self) -> &str {
        self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(self.measure())
    }
}

pub(super) fn sample(events: usize, elapsed: Duration, latency: Option<Latency>) -> Sample {
    Sample { events, elapsed, latency, mebibytes: None }
}

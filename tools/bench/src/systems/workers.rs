//! Workers of a partitioned consumer.

use std::{
    convert::Infallible,
    num::{NonZeroU16, NonZeroUsize},
    time::{Duration, Instant},
};

use anyhow::Result;
use es_core::{Notification, ProcessRecorder, SegmentRecorder, SegmentRecorderExt, StoredEvent, uuid::Uuid};
use es_process::{HandlerConsumer, PartitionedProcessor, key_hash};
use tokio::time::sleep;

use super::followers::{CreateRecorder, TIMEOUT, notice, sample};
use crate::{
    data,
    system::{BoxFuture, Sample, System},
};

const NAME: &str = "bank";
const SEGMENTS: u16 = 16;
/// The time that a handler waits, as for another service.
const HANDLER_TIME: Duration = Duration::from_millis(2);
/// Renewals share out the segments; they are often so that a round begins soon.
const LEASE: Duration = Duration::from_millis(900);

/// Workers in tasks, each with one handler at a time that waits.
pub(crate) struct Workers<R> {
    name: String,
    create: CreateRecorder<R>,
    workers: u16,
    events: usize,
}

impl<R: ProcessRecorder + SegmentRecorder + Clone + 'static> Workers<R> {
    pub(crate) fn boxed(create: CreateRecorder<R>, workers: u16, events: usize) -> Box<dyn System> {
        Box::new(Self { name: Self::name_of(workers), create, workers, events })
    }

    pub(crate) fn name_of(workers: u16) -> String {
        format!("workers: {workers}")
    }

    async fn measure(&self) -> Result<Sample> {
        let (upstream, downstream) = ((self.create)().await?, (self.create)().await?);
        let mut running = Vec::new();
        for _ in 0..self.workers {
            let consumers = downstream.clone();
            let worker = PartitionedProcessor::new(NAME, upstream.clone(), downstream.clone(), move |_| {
                let consumer = HandlerConsumer::new(consumers.clone(), slow_notice);
                async move { Ok(consumer) }
            });
            let segments = NonZeroU16::new(SEGMENTS).unwrap_or(NonZeroU16::MIN);
            running.push(worker.segments(segments).lease(LEASE).concurrency(NonZeroUsize::MIN).spawn()?);
        }
        self.shared_out(&downstream).await?;
        let start = Instant::now();
        let ids = upstream.insert_events(events(self.events)).await?;
        let last = ids.last().copied().unwrap_or(0);
        downstream.wait_for_segments(NAME, last, TIMEOUT).await?;
        let elapsed = start.elapsed();
        for mut worker in running {
            worker.stop();
            worker.join().await?;
        }
        Ok(sample(self.events, elapsed, None))
    }

    /// Waits until each worker has its share of the segments.
    async fn shared_out(&self, downstream: &R) -> Result<()> {
        loop {
            let recorded = downstream.segments(NAME).await?;
            let has_share = |worker: &str| {
                let owned =
                    recorded.segments.iter().filter(|segment| segment.owner.as_deref() == Some(worker));
                owned.count() == recorded.fair_share(worker)
            };
            let workers = &recorded.workers;
            if workers.len() == usize::from(self.workers)
                && workers.iter().all(|worker| has_share(&worker.name))
            {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// As many events for each segment: the figures do not depend on the hashes of a few aggregates.
fn events(count: usize) -> Vec<StoredEvent> {
    let segment =
        |id: &Uuid| (u128::from(key_hash(id.as_bytes()).cast_unsigned()) * u128::from(SEGMENTS)) >> 63;
    let mut events = Vec::with_capacity(count);
    let mut ids = (0..).map(data::originator);
    for wanted in (0..u128::from(SEGMENTS)).cycle().take(count) {
        let Some(id) = ids.find(|id| segment(id) == wanted) else { break };
        events.extend(data::events(id, 1, data::STATE_SIZE));
    }
    events
}

async fn slow_notice(notification: Notification) -> Result<Vec<StoredEvent>, Infallible> {
    sleep(HANDLER_TIME).await;
    notice(notification).await
}

impl<R: ProcessRecorder + SegmentRecorder + Clone + 'static> System for Workers<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn round(&mut self) -> BoxFuture<'_, Sample> {
        Box::pin(self.measure())
    }
}

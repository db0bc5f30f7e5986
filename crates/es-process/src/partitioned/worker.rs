//! One run of a worker: claims segments, runs their processors, renews the lease.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use es_core::{
    ApplicationRecorder, NotificationConsumer, PersistenceError, Segment, SegmentChange, SegmentRecorder,
    Segments, Signal, StopHandle, uuid::Uuid,
};
use futures_util::future::{Either, select};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{AbortHandle, JoinError, JoinSet},
};

use super::{
    consumer::{SegmentConsumer, Shared},
    lease::Lease,
    settings::Settings,
};
use crate::{Processor, ProcessorError, pages::SharedReads};

/// One run of a worker.
pub(super) struct Worker<'p, U, L, C> {
    settings: &'p mut Settings<U, L, C>,
    /// Unique: a worker that runs again does not continue an earlier lease.
    name: String,
    shared: Shared,
    /// The reads of the upstream for all its segments.
    reads: SharedReads<U>,
    held: HashMap<i64, Held>,
    tasks: JoinSet<Ended>,
}

/// A segment whose processor runs.
struct Held {
    epoch: i64,
    stop: StopHandle,
    task: AbortHandle,
}

/// The end of the processor of a segment.
struct Ended {
    segment: Segment,
    reason: End,
}

enum End {
    /// It was stopped, or the upstream was closed.
    Stopped,
    /// The lease is over, or another worker has the segment.
    Lost,
    Failed(ProcessorError),
}

impl<'p, U, L, C> Worker<'p, U, L, C>
where
    U: ApplicationRecorder + Clone + 'static,
    L: SegmentRecorder,
    C: NotificationConsumer + 'static,
{
    pub(super) fn new(settings: &'p mut Settings<U, L, C>) -> Self {
        let shared = Shared {
            key_hash: Arc::clone(&settings.key_hash),
            lease: Lease::new(),
            permits: Arc::new(Semaphore::new(settings.concurrency)),
            progress: settings.progress.clone(),
        };
        let name = Uuid::now_v7().to_string();
        let (reads, held, tasks) = (SharedReads::new(), HashMap::new(), JoinSet::new());
        Self { settings, name, shared, reads, held, tasks }
    }

    pub(super) async fn run(mut self) -> Result<(), ProcessorError> {
        if let Err(error) = Handle::try_current() {
            let message = "a worker runs outside of a tokio runtime";
            return Err(self.error(PersistenceError::interface(message).with_source(error)));
        }
        let result = self.work().await;
        let left = self.leave().await;
        result.and(left)
    }

    async fn work(&mut self) -> Result<(), ProcessorError> {
        let mut is_created = false;
        while !self.is_ended() {
            let next = Instant::now() + self.settings.lease / 3;
            let changed = match is_created {
                true => self.balance().await,
                false => self.change(SegmentChange::Create(self.settings.segments)).await.map(drop),
            };
            match changed {
                Ok(()) if !is_created => {
                    is_created = true;
                    continue;
                }
                Ok(()) => {}
                Err(error) if may_retry(&error) => {
                    tracing::warn!(consumer = self.settings.name, %error, "renewing a lease failed; retrying");
                }
                Err(error) => return Err(self.error(error)),
            }
            while let Some(ended) = self.ended_before(next).await {
                self.after_end(ended).await?;
            }
        }
        Ok(())
    }

    /// Renews the lease, and runs the processors of this worker's share of the segments.
    async fn balance(&mut self) -> Result<(), PersistenceError> {
        let (worker, lease) = (self.name.clone(), self.settings.lease);
        let mut segments = self.renew(SegmentChange::Renew { worker, lease }).await?;
        let head = self.settings.upstream.max_notification_id().await?.unwrap_or(0);
        self.settings.progress.moved(segments.position(), head);
        let share = segments.fair_share(&self.name);
        let owned = segments.segments.iter().filter(|segment| self.owns(segment));
        let surplus = owned.clone().count().saturating_sub(share);
        // The same ones at each call, until they have ended.
        let surplus: Vec<_> = owned.take(surplus).map(|segment| segment.first_hash).collect();
        for first_hash in &surplus {
            match self.held.get(first_hash) {
                Some(held) => held.stop.stop(),
                None if self.is_renewal_urgent() => {}
                None => self.release(*first_hash).await?,
            }
        }
        let all: Vec<_> = segments.segments.iter().map(|segment| segment.first_hash).collect();
        for first_hash in all.into_iter().filter(|first_hash| !surplus.contains(first_hash)) {
            // A claim renews the lease, but consumers may take long to make.
            if self.is_renewal_urgent() || self.is_ended() {
                break;
            }
            let owned = segments.segments.iter().filter(|segment| self.owns(segment)).count();
            let is_claimable = |one: &Segment| one.first_hash == first_hash && is_free(&segments, one);
            if owned < share && segments.segments.iter().any(is_claimable) {
                segments = self.claim(first_hash).await?.unwrap_or(segments);
            }
            let own = |one: &&Segment| one.first_hash == first_hash && self.owns(one);
            if let Some(segment) = segments.segments.iter().find(own)
                && !self.held.contains_key(&first_hash)
            {
                self.start(segment.clone()).await?;
            }
        }
        Ok(())
    }

    /// Claims a segment. Returns `None` if that is not possible at the moment.
    async fn claim(&mut self, first_hash: i64) -> Result<Option<Segments>, PersistenceError> {
        let (worker, lease) = (self.name.clone(), self.settings.lease);
        match self.renew(SegmentChange::Claim { worker, lease, first_hash }).await {
            Err(error) if may_retry(&error) => {
                tracing::debug!(consumer = self.settings.name, %error, "a segment was not claimed");
                Ok(None)
            }
            claimed => claimed.map(Some),
        }
    }

    /// Makes a change that renews the lease.
    async fn renew(&mut self, change: SegmentChange) -> Result<Segments, PersistenceError> {
        let sent = Instant::now();
        let segments = self.change(change).await?;
        self.shared.lease.extend(sent + self.settings.lease);
        self.forget_lost(&segments);
        Ok(segments)
    }

    /// Returns whether the lease comes before other changes: half of it is over, and the next renewal may
    /// take as long as the last one.
    fn is_renewal_urgent(&self) -> bool {
        self.shared.lease.remaining() <= self.settings.lease / 2
    }

    /// Stops the processors of segments that this worker has no more.
    fn forget_lost(&mut self, segments: &Segments) {
        let is_owned = |first_hash: i64, epoch: i64| {
            let mut owned =
                segments.segments.iter().filter(|segment| segment.owner.as_ref() == Some(&self.name));
            owned.any(|segment| (segment.first_hash, segment.epoch) == (first_hash, epoch))
        };
        self.held.retain(|first_hash, held| {
            let is_kept = is_owned(*first_hash, held.epoch);
            if !is_kept {
                held.task.abort();
            }
            is_kept
        });
    }

    /// Runs the processor of a segment.
    async fn start(&mut self, segment: Segment) -> Result<(), PersistenceError> {
        let made = (self.settings.make.get_mut())(segment.clone());
        let consumer = made.await?;
        let is_fenced = Arc::new(AtomicBool::new(false));
        let (shared, lease) = (self.shared.clone(), self.shared.lease.clone());
        let consumer = SegmentConsumer::new(consumer, segment.clone(), shared, Arc::clone(&is_fenced));
        let name = segment.tracking_name(&self.settings.name);
        let label = format!("{}/{:016x}", self.settings.name, segment.first_hash);
        let processor = Processor::with_consumer(name, self.settings.upstream.clone(), consumer);
        let mut processor = (self.settings.configure)(processor).labelled(label).sharing(self.reads.clone());
        let (stop, epoch, first_hash) = (processor.stop_handle(), segment.epoch, segment.first_hash);
        let run = async move {
            let reason = match lease.during(processor.run()).await {
                Some(Ok(())) => End::Stopped,
                Some(Err(error)) if !is_fenced.load(Ordering::SeqCst) => End::Failed(error),
                _ => End::Lost,
            };
            Ended { segment, reason }
        };
        let task = self.tasks.spawn(run);
        self.held.insert(first_hash, Held { epoch, stop, task });
        Ok(())
    }

    /// Returns the end of a processor that has ended, or ends before a time and before the worker is stopped.
    async fn ended_before(&mut self, time: Instant) -> Option<Result<Ended, JoinError>> {
        loop {
            if self.is_ended() {
                return None;
            }
            // Also if the renewal has taken all the time.
            if let Some(ended) = self.tasks.try_join_next() {
                return Some(ended);
            }
            let remaining = time.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return None;
            }
            let (stop, signal) = (&self.settings.stop, self.settings.upstream.commit_signal());
            let interrupted = async {
                select(pin!(stop.stopped()), pin!(signal.closed_timeout(remaining))).await;
            };
            // A set without tasks has no next one; it is not waited for.
            let next = async {
                match self.tasks.join_next().await {
                    Some(ended) => ended,
                    None => std::future::pending().await,
                }
            };
            if let Either::Left((ended, _)) = select(pin!(next), pin!(interrupted)).await {
                return Some(ended);
            }
        }
    }

    async fn after_end(&mut self, ended: Result<Ended, JoinError>) -> Result<(), ProcessorError> {
        let Ended { segment, reason } = match ended {
            Ok(ended) => ended,
            Err(error) if error.is_cancelled() => return Ok(()),
            Err(error) => {
                let consumer_name = self.settings.name.clone();
                return Err(ProcessorError::Aborted { consumer_name, source: error.into() });
            }
        };
        let first_hash = segment.first_hash;
        let is_current = self.held.get(&first_hash).is_some_and(|held| held.epoch == segment.epoch);
        if is_current {
            self.held.remove(&first_hash);
        }
        match reason {
            End::Failed(error) => Err(error),
            End::Stopped if is_current && !self.is_renewal_urgent() => match self.release(first_hash).await {
                Err(error) if !may_retry(&error) => Err(self.error(error)),
                _ => Ok(()),
            },
            // If it is still the worker's, it is released after the next renewal.
            End::Stopped => Ok(()),
            End::Lost => {
                tracing::warn!(consumer = self.settings.name, first_hash, "a segment was lost");
                Ok(())
            }
        }
    }

    /// Ends the processors in order, and releases their segments. The lease is renewed until they have ended:
    /// without one, they would not commit their batches.
    async fn leave(&mut self) -> Result<(), ProcessorError> {
        self.held.values().for_each(|held| held.stop.stop());
        let (mut result, pause) = (Ok(()), self.settings.lease / 3);
        let mut next = Instant::now() + self.shared.lease.remaining().saturating_sub(pause * 2);
        let never = Signal::new();
        while !self.tasks.is_empty() {
            let remaining = next.saturating_duration_since(Instant::now());
            let due = never.closed_timeout(remaining);
            let ended = match select(pin!(self.tasks.join_next()), pin!(due)).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => None,
            };
            match ended {
                Some(Ok(Ended { reason: End::Failed(error), .. })) => result = Err(error),
                Some(_) => {}
                None => {
                    next = Instant::now() + pause;
                    let (worker, lease) = (self.name.clone(), self.settings.lease);
                    if let Err(error) = self.renew(SegmentChange::Renew { worker, lease }).await {
                        tracing::warn!(consumer = self.settings.name, %error, "renewing a lease failed; retrying");
                    }
                }
            }
        }
        // If this fails, the segments are free when the lease is over.
        if let Err(error) = self.change(SegmentChange::Leave { worker: self.name.clone() }).await {
            tracing::debug!(consumer = self.settings.name, %error, "a worker left without releasing its segments");
        }
        result
    }

    async fn release(&self, first_hash: i64) -> Result<(), PersistenceError> {
        self.change(SegmentChange::Release { worker: self.name.clone(), first_hash }).await.map(drop)
    }

    async fn change(&self, change: SegmentChange) -> Result<Segments, PersistenceError> {
        self.settings.leases.change_segments(&self.settings.name, change).await
    }

    fn owns(&self, segment: &Segment) -> bool {
        segment.owner.as_ref() == Some(&self.name)
    }

    fn is_ended(&self) -> bool {
        self.settings.upstream.commit_signal().is_closed() || self.settings.stop.is_stopped()
    }

    fn error(&self, source: PersistenceError) -> ProcessorError {
        ProcessorError::Persistence { consumer_name: self.settings.name.clone(), source }
    }
}

/// Returns whether a segment may be claimed. Expired workers were removed by the renewal.
fn is_free(segments: &Segments, segment: &Segment) -> bool {
    let is_worker = |owner: &String| segments.workers.iter().any(|worker| worker.name == *owner);
    !segment.owner.as_ref().is_some_and(is_worker)
}

/// Returns whether a change may be repeated: each of them leaves what it has changed before as it is.
fn may_retry(error: &PersistenceError) -> bool {
    error.is_transient() || error.is_outcome_unknown()
}

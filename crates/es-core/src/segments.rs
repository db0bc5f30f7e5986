//! Segments of partitioned consumers: who processes which, and the recorder that keeps them.
//!
//! The rules are here, in [`Segments::apply`]. A backend loads the segments of a consumer, applies a change,
//! and performs the steps that follow from it, in one transaction that excludes other changes.

use std::{
    fmt::Debug,
    future::Future,
    num::NonZeroU16,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    ApplicationRecorder, ConsumerLag, PersistenceError, Tracking, TrackingRecorder,
    tracking_ext::{POLL_INTERVAL, timed_out},
};

/// A segment of a partitioned consumer: a range of the hashes of keys, with a position of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The lowest hash of the range, which identifies the segment.
    pub first_hash: i64,
    /// The highest hash of the range.
    pub last_hash: i64,
    /// The number of the current claim. It is a part of the [name](Self::tracking_name) of the position.
    pub epoch: i64,
    /// The worker that has claimed the segment.
    pub owner: Option<String>,
    /// The recorded position when the segment was read; [`UNSTARTED`](Self::UNSTARTED) before the first.
    pub position: i64,
}

impl Segment {
    /// The position of a segment that has processed nothing. Unlike 0, which a missing record counts as, it
    /// is recorded: the first commit of a worker fails too if its record was moved to the next epoch.
    pub const UNSTARTED: i64 = -1;

    /// A segment as recorded, for a backend.
    pub fn new(first_hash: i64, last_hash: i64, epoch: i64, owner: Option<String>, position: i64) -> Self {
        Self { first_hash, last_hash, epoch, owner, position }
    }

    /// Returns whether the segment has the keys with this hash.
    pub fn contains(&self, hash: i64) -> bool {
        (self.first_hash..=self.last_hash).contains(&hash)
    }

    /// Returns the name under which the position of this epoch is recorded:
    /// `<consumer>/<first hash in hexadecimal digits>/<epoch>`.
    pub fn tracking_name(&self, consumer_name: &str) -> String {
        format!("{consumer_name}/{:016x}/{}", self.first_hash, self.epoch)
    }
}

/// A worker of a partitioned consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentWorker {
    /// The name, unique among all runs of workers.
    pub name: String,
    /// The end of the lease, in milliseconds of the datastore's clock since 1970.
    pub expires_at: i64,
}

impl SegmentWorker {
    /// A worker as recorded, for a backend.
    pub fn new(name: impl Into<String>, expires_at: i64) -> Self {
        Self { name: name.into(), expires_at }
    }
}

/// The segments and the workers of a partitioned consumer.
///
/// - The segments are ordered by hash. Together they have each hash once.
/// - A lease is that of a worker, for all its segments. A segment whose owner has no lease is free.
/// - Each claim begins an epoch and moves the position to the name of that epoch, in one transaction. A
///   commit of an earlier epoch expects a position under a name that does not exist any more, and fails.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segments {
    /// The name of the consumer.
    pub consumer_name: String,
    /// The segments, ordered by hash; none before they are created.
    pub segments: Vec<Segment>,
    /// The workers that have renewed a lease, and have not left.
    pub workers: Vec<SegmentWorker>,
}

/// A change of the segments of a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentChange {
    /// Creates segments of equal ranges, unless the consumer has segments. They begin at the position of a
    /// consumer that is not partitioned and has this name, if there is one; its record is removed.
    Create(NonZeroU16),
    /// Begins the lease of a worker, or renews it. If it has expired meanwhile, the worker loses its
    /// segments.
    Renew {
        /// The worker.
        worker: String,
        /// The duration of the lease.
        lease: Duration,
    },
    /// Renews the lease of a worker as [`Renew`](Self::Renew) does, and claims a segment for it. A segment
    /// that is not free remains as it is.
    Claim {
        /// The worker.
        worker: String,
        /// The duration of the lease.
        lease: Duration,
        /// The segment.
        first_hash: i64,
    },
    /// Releases a segment, if it is the worker's.
    Release {
        /// The worker.
        worker: String,
        /// The segment.
        first_hash: i64,
    },
    /// Releases all segments of a worker, and ends its lease.
    Leave {
        /// The worker.
        worker: String,
    },
    /// Splits a segment into two of equal ranges, at its position. Both are free.
    Split {
        /// The segment.
        first_hash: i64,
    },
    /// Merges a segment with the next one, if their positions are equal: at a lower position the effects of
    /// one would be repeated, and at a higher one those of the other be missing. The result is free.
    ///
    /// Repeat it until it succeeds: workers bring both to the end of the log.
    Merge {
        /// The first of the two segments.
        first_hash: i64,
    },
    /// Replaces all segments by those of a copied log, at their positions. All are free. Nothing changes if
    /// ranges and positions are the same. No worker may have a lease, and no key be processed further than in
    /// the source.
    Restore(Vec<Segment>),
}

/// A step of a change, for a backend to perform.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentStep {
    /// Inserts or replaces the record of a segment.
    PutSegment(Segment),
    /// Removes the record of a segment.
    RemoveSegment {
        /// The segment.
        first_hash: i64,
    },
    /// Inserts or replaces the record of a worker.
    PutWorker(SegmentWorker),
    /// Removes the record of a worker.
    RemoveWorker {
        /// The worker.
        name: String,
    },
    /// Moves a position to another name as [`MovePosition`](Self::MovePosition) does, or records
    /// [`Segment::UNSTARTED`] there if there is none.
    BeginPosition {
        /// The name until now.
        from: String,
        /// The new name.
        to: String,
    },
    /// Moves a position to another name, where 0 becomes [`Segment::UNSTARTED`]: a commit cannot require
    /// that 0 is recorded. The change fails with [`SegmentStep::refused`] if there is no position, if it is
    /// another one than is given, or if a transaction that has not ended has it.
    MovePosition {
        /// The name until now.
        from: String,
        /// The new name.
        to: String,
        /// The required position, if any.
        position: Option<i64>,
    },
    /// Records the position of one name under another name.
    CopyPosition {
        /// The name that has the position.
        from: String,
        /// The new name.
        to: String,
    },
    /// Records a position under a name that has none.
    InsertPosition {
        /// The name.
        name: String,
        /// The position.
        position: i64,
    },
    /// Removes a position. The change fails as for [`MovePosition`](Self::MovePosition).
    RemovePosition {
        /// The name.
        name: String,
        /// The required position.
        position: i64,
    },
}

impl SegmentStep {
    /// Returns the error of a step whose position does not exist, is not the required one, or is in use.
    pub fn refused(name: &str) -> PersistenceError {
        let message = format!("position {name:?} is being recorded, or has changed meanwhile");
        PersistenceError::operational(message).transient()
    }
}

impl Segments {
    /// The segments as recorded, for a backend.
    pub fn new(
        consumer_name: impl Into<String>,
        mut segments: Vec<Segment>,
        workers: Vec<SegmentWorker>,
    ) -> Self {
        segments.sort_unstable_by_key(|segment| segment.first_hash);
        Self { consumer_name: consumer_name.into(), segments, workers }
    }

    /// Returns the segment of a hash, if the segments are created.
    pub fn of_hash(&self, hash: i64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.contains(hash))
    }

    /// Returns the position up to which all segments have processed all notifications; 0 before the first.
    pub fn position(&self) -> i64 {
        self.segments.iter().map(|segment| segment.position).min().unwrap_or(0).max(0)
    }

    /// Returns whether a worker has a lease at a time in milliseconds since 1970.
    pub fn has_lease(&self, worker: &str, now: i64) -> bool {
        self.workers.iter().any(|other| other.name == worker && other.expires_at > now)
    }

    /// Returns the number of segments that a worker should have: they are shared out evenly, the rest among
    /// the first workers by name. Workers that are recorded count, also those whose lease expires right now.
    pub fn fair_share(&self, worker: &str) -> usize {
        let (segments, workers) = (self.segments.len(), self.workers.len().max(1));
        let rank = self.workers.iter().filter(|other| other.name.as_str() < worker).count();
        segments / workers + usize::from(rank < segments % workers)
    }

    /// Returns the milliseconds of this machine's clock since 1970, for backends whose processes share it.
    pub fn local_time() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Applies a change at a time in milliseconds since 1970. Returns the steps to perform, in order.
    ///
    /// # Errors
    /// [`Programming`](crate::ErrorKind::Programming) if the consumer does not have a segment that is to be
    /// split or merged, or its range is too small; if segments cannot be restored.
    /// [`Data`](crate::ErrorKind::Data) if the consumer's name is invalid. If two segments to merge have
    /// different positions, an error that is [transient](PersistenceError::is_transient).
    pub fn apply(&mut self, change: &SegmentChange, now: i64) -> Result<Vec<SegmentStep>, PersistenceError> {
        // A position of this name is moved, and must not be the row that marks the layout of its table.
        Tracking::new(self.consumer_name.as_str(), 0)?;
        match change {
            SegmentChange::Create(count) => Ok(self.create(*count)),
            SegmentChange::Renew { worker, lease } => Ok(self.renew(worker, *lease, now)),
            SegmentChange::Claim { worker, lease, first_hash } => {
                let mut steps = self.renew(worker, *lease, now);
                steps.extend(self.claim(worker, *first_hash, now));
                Ok(steps)
            }
            SegmentChange::Release { worker, first_hash } => {
                let first_hash = *first_hash;
                Ok(self.release(|segment| segment.first_hash == first_hash, worker))
            }
            SegmentChange::Leave { worker } => {
                let mut steps = self.release(|_| true, worker);
                self.workers.retain(|other| other.name != *worker);
                steps.push(SegmentStep::RemoveWorker { name: worker.clone() });
                Ok(steps)
            }
            SegmentChange::Split { first_hash } => self.split(*first_hash),
            SegmentChange::Merge { first_hash } => self.merge(*first_hash),
            SegmentChange::Restore(segments) => self.restore(segments, now),
        }
    }

    fn create(&mut self, count: NonZeroU16) -> Vec<SegmentStep> {
        if !self.segments.is_empty() {
            return Vec::new();
        }
        let hashes = u64::MAX / 2 + 1;
        let count = u128::from(count.get());
        // The first hash of the segment after the last one is one more than the highest hash.
        let first = |index: u128| (u128::from(hashes) * index).div_ceil(count);
        let hash = |hash: u128| i64::try_from(hash).unwrap_or(i64::MAX);
        self.segments = (0..count)
            .map(|index| {
                Segment::new(hash(first(index)), hash(first(index + 1) - 1), 0, None, Segment::UNSTARTED)
            })
            .collect();
        let names: Vec<_> = self.segments.iter().map(|segment| self.name(segment)).collect();
        let mut steps = Vec::new();
        for (index, (segment, to)) in self.segments.iter().zip(&names).enumerate() {
            steps.push(SegmentStep::PutSegment(segment.clone()));
            let to = to.clone();
            steps.push(match names.first().filter(|_| index > 0) {
                None => SegmentStep::BeginPosition { from: self.consumer_name.clone(), to },
                Some(from) => SegmentStep::CopyPosition { from: from.clone(), to },
            });
        }
        steps
    }

    fn renew(&mut self, worker: &str, lease: Duration, now: i64) -> Vec<SegmentStep> {
        let mut steps = Vec::new();
        if !self.has_lease(worker, now) {
            steps.extend(self.release(|_| true, worker));
        }
        let (kept, gone) = std::mem::take(&mut self.workers)
            .into_iter()
            .filter(|other| other.name != worker)
            .partition::<Vec<_>, _>(|other| other.expires_at > now);
        steps.extend(gone.into_iter().map(|gone| SegmentStep::RemoveWorker { name: gone.name }));
        self.workers = kept;
        let milliseconds = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        // The time is rounded down, and the lease must not end before the worker expects it.
        let expires_at = now.saturating_add(milliseconds).saturating_add(1);
        let renewed = SegmentWorker::new(worker, expires_at);
        self.workers.push(renewed.clone());
        steps.push(SegmentStep::PutWorker(renewed));
        steps
    }

    fn claim(&mut self, worker: &str, first_hash: i64, now: i64) -> Vec<SegmentStep> {
        let owner = self.find(first_hash).and_then(|index| self.segments[index].owner.clone());
        let is_free = owner.is_none_or(|owner| owner != worker && !self.has_lease(&owner, now));
        match self.find(first_hash) {
            Some(index) if is_free => {
                let from = self.name(&self.segments[index]);
                let segment = &mut self.segments[index];
                segment.epoch += 1;
                segment.owner = Some(worker.to_owned());
                let segment = segment.clone();
                let to = self.name(&segment);
                vec![SegmentStep::MovePosition { from, to, position: None }, SegmentStep::PutSegment(segment)]
            }
            _ => Vec::new(),
        }
    }

    fn release(&mut self, is_released: impl Fn(&Segment) -> bool, worker: &str) -> Vec<SegmentStep> {
        let owned = self.segments.iter_mut().filter(|segment| segment.owner.as_deref() == Some(worker));
        let released = owned.filter(|segment| is_released(segment)).map(|segment| {
            segment.owner = None;
            SegmentStep::PutSegment(segment.clone())
        });
        released.collect()
    }

    fn split(&mut self, first_hash: i64) -> Result<Vec<SegmentStep>, PersistenceError> {
        let index = self.find(first_hash).ok_or_else(|| self.missing(first_hash))?;
        let old = self.segments[index].clone();
        if old.first_hash == old.last_hash {
            let message = format!("segment {first_hash:016x} has one hash, and cannot be split");
            return Err(PersistenceError::programming(message));
        }
        let middle = old.first_hash + (old.last_hash - old.first_hash) / 2;
        let epoch = self.next_epoch();
        let low = Segment { last_hash: middle, epoch, owner: None, ..old.clone() };
        let high = Segment { first_hash: middle + 1, epoch, owner: None, ..old.clone() };
        let names = [&old, &low, &high].map(|segment| self.name(segment));
        self.segments.splice(index..=index, [low.clone(), high.clone()]);
        let [from, to, copy] = names;
        Ok(vec![
            SegmentStep::MovePosition { from, to: to.clone(), position: None },
            SegmentStep::CopyPosition { from: to, to: copy },
            SegmentStep::PutSegment(low),
            SegmentStep::PutSegment(high),
        ])
    }

    fn merge(&mut self, first_hash: i64) -> Result<Vec<SegmentStep>, PersistenceError> {
        let index = self.find(first_hash).ok_or_else(|| self.missing(first_hash))?;
        let low = self.segments[index].clone();
        let Some(high) = self.segments.get(index + 1).cloned() else {
            let message =
                format!("segment {first_hash:016x} is the last one, and cannot be merged with the next");
            return Err(PersistenceError::programming(message));
        };
        if low.position != high.position {
            let message = format!(
                "segments {:016x} and {:016x} are at positions {} and {}: they can be merged when these are equal, \
                 as at the end of the log",
                low.first_hash, high.first_hash, low.position, high.position
            );
            return Err(PersistenceError::operational(message).transient());
        }
        let position = low.position;
        let merged =
            Segment { last_hash: high.last_hash, epoch: self.next_epoch(), owner: None, ..low.clone() };
        let (from, to, name) = (self.name(&low), self.name(&merged), self.name(&high));
        self.segments.splice(index..=index + 1, [merged.clone()]);
        Ok(vec![
            SegmentStep::MovePosition { from, to, position: Some(position) },
            SegmentStep::RemovePosition { name, position },
            SegmentStep::RemoveSegment { first_hash: high.first_hash },
            SegmentStep::PutSegment(merged),
        ])
    }

    fn restore(&mut self, source: &[Segment], now: i64) -> Result<Vec<SegmentStep>, PersistenceError> {
        let source = Self::new(&self.consumer_name, source.to_vec(), Vec::new()).segments;
        let state = |segment: &Segment| (segment.first_hash, segment.last_hash, segment.position);
        if self.segments.iter().map(state).eq(source.iter().map(state)) {
            return Ok(Vec::new());
        }
        let refused = |reason: &str| {
            let name = &self.consumer_name;
            Err(PersistenceError::programming(format!(
                "segments of consumer {name:?} are not replaced: {reason}"
            )))
        };
        if !has_each_hash_once(&source) {
            return refused("the new ones do not have each hash once");
        }
        if self.workers.iter().any(|worker| worker.expires_at > now) {
            return refused("it has workers");
        }
        let is_behind = |segment: &Segment, old: &Segment| {
            segment.first_hash <= old.last_hash
                && old.first_hash <= segment.last_hash
                && segment.position < old.position
        };
        if source.iter().any(|segment| self.segments.iter().any(|old| is_behind(segment, old))) {
            return refused("it has processed more than the new ones");
        }
        let epoch = if self.segments.is_empty() { 0 } else { self.next_epoch() };
        let restored = source.into_iter().map(|segment| {
            let epoch = epoch.max(segment.epoch);
            Segment { epoch, owner: None, ..segment }
        });
        let old = std::mem::replace(&mut self.segments, restored.collect());
        let mut steps = Vec::new();
        for segment in &old {
            let (name, position) = (self.name(segment), segment.position);
            steps.push(SegmentStep::RemovePosition { name, position });
            steps.push(SegmentStep::RemoveSegment { first_hash: segment.first_hash });
        }
        for segment in &self.segments {
            let (name, position) = (self.name(segment), segment.position);
            steps.push(SegmentStep::InsertPosition { name, position });
            steps.push(SegmentStep::PutSegment(segment.clone()));
        }
        Ok(steps)
    }

    /// Returns an epoch that no segment has had. A segment that is merged leaves a higher one behind, so that
    /// its name does not come back when the ranges are split again.
    fn next_epoch(&self) -> i64 {
        self.segments.iter().map(|segment| segment.epoch).max().unwrap_or(0) + 1
    }

    fn find(&self, first_hash: i64) -> Option<usize> {
        self.segments.iter().position(|segment| segment.first_hash == first_hash)
    }

    fn name(&self, segment: &Segment) -> String {
        segment.tracking_name(&self.consumer_name)
    }

    fn missing(&self, first_hash: i64) -> PersistenceError {
        let name = &self.consumer_name;
        PersistenceError::programming(format!("consumer {name:?} has no segment {first_hash:016x}"))
    }
}

/// Returns whether segments that are ordered by hash have each hash once.
fn has_each_hash_once(segments: &[Segment]) -> bool {
    let mut next = Some(0);
    for segment in segments {
        if next != Some(segment.first_hash) || segment.last_hash < segment.first_hash {
            return false;
        }
        next = segment.last_hash.checked_add(1);
    }
    // The highest hash has no next one.
    next.is_none()
}

/// Stores the segments of partitioned consumers, beside their positions.
///
/// The tables are created by [`SegmentChange::Create`] and [`SegmentChange::Restore`].
pub trait SegmentRecorder: TrackingRecorder {
    /// Returns the segments of a consumer with their positions, in one read.
    ///
    /// # Errors
    /// If the datastore cannot be read, or has no tables of segments.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn segments(
        &self,
        consumer_name: &str,
    ) -> impl Future<Output = Result<Segments, PersistenceError>> + Send;

    /// Changes the segments of a consumer by [`Segments::apply`], in one transaction and at the time of the
    /// datastore. Returns them as they are then; positions may be older.
    ///
    /// # Errors
    /// As [`Segments::apply`]; [transient](PersistenceError::is_transient) if a position that is to be moved
    /// is just being recorded; any error of recording. Nothing is changed then, unless the connection was
    /// lost.
    ///
    /// # Cancel safety
    /// Cancel safe: either the change is made or it is not.
    fn change_segments(
        &self,
        consumer_name: &str,
        change: SegmentChange,
    ) -> impl Future<Output = Result<Segments, PersistenceError>> + Send;
}

/// Waiting for and monitoring of partitioned consumers, for every recorder of segments.
pub trait SegmentRecorderExt: SegmentRecorder {
    /// Waits until all segments of a consumer have processed the notification `notification_id`, or a later
    /// one, so that a writer can read the effects of its events.
    ///
    /// # Errors
    /// As [`TrackingRecorderExt::wait`](crate::TrackingRecorderExt::wait).
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn wait_for_segments(
        &self,
        consumer_name: &str,
        notification_id: i64,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send {
        wait(self, consumer_name, None, notification_id, timeout)
    }

    /// Waits as [`wait_for_segments`](Self::wait_for_segments) does, for the segment of one key alone, by its
    /// hash: that of an aggregate, for example.
    ///
    /// # Errors
    /// As [`wait_for_segments`](Self::wait_for_segments).
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn wait_for_key(
        &self,
        consumer_name: &str,
        hash: i64,
        notification_id: i64,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), PersistenceError>> + Send {
        wait(self, consumer_name, Some(hash), notification_id, timeout)
    }

    /// Returns the segments of a consumer, each with its position and the end of the upstream log.
    ///
    /// # Errors
    /// Any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn segment_lags<R: ApplicationRecorder>(
        &self,
        consumer_name: &str,
        upstream: &R,
    ) -> impl Future<Output = Result<Vec<(Segment, ConsumerLag)>, PersistenceError>> + Send {
        async move {
            let segments = self.segments(consumer_name).await?.segments;
            let head = upstream.max_notification_id().await?.unwrap_or(0);
            let lag = |segment: &Segment| ConsumerLag { position: segment.position.max(0), head };
            Ok(segments.into_iter().map(|segment| (segment.clone(), lag(&segment))).collect())
        }
    }
}

impl<R: SegmentRecorder + ?Sized> SegmentRecorderExt for R {}

async fn wait<R: SegmentRecorder + ?Sized>(
    recorder: &R,
    consumer_name: &str,
    hash: Option<i64>,
    notification_id: i64,
    timeout: Duration,
) -> Result<(), PersistenceError> {
    let began = Instant::now();
    loop {
        // First for the names, which change with each claim.
        let names: Vec<_> = behind(recorder, consumer_name, hash, notification_id).await?;
        let mut listener = recorder.tracking_signal().listen(&names);
        if names.is_empty() || behind(recorder, consumer_name, hash, notification_id).await?.is_empty() {
            return Ok(());
        }
        let left = timeout.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(timed_out(consumer_name, notification_id, timeout));
        }
        if !listener.notified_timeout(left.min(POLL_INTERVAL)).await {
            return Err(PersistenceError::interface("the recorder was closed during the wait"));
        }
    }
}

/// Returns the names of the positions that are before a notification.
async fn behind<R: SegmentRecorder + ?Sized>(
    recorder: &R,
    consumer_name: &str,
    hash: Option<i64>,
    notification_id: i64,
) -> Result<Vec<String>, PersistenceError> {
    let segments = recorder.segments(consumer_name).await?.segments;
    if segments.is_empty() {
        // A worker that has not started yet will create them.
        return Ok(vec![consumer_name.to_owned()]);
    }
    let concerned = segments.iter().filter(|segment| hash.is_none_or(|hash| segment.contains(hash)));
    let behind = concerned.filter(|segment| segment.position < notification_id);
    Ok(behind.map(|segment| segment.tracking_name(consumer_name)).collect())
}

//! The progress of a processor, and its state.

use std::{
    error::Error,
    iter::successors,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{ProcessorError, metrics::Metrics};

/// The time constant of the moving average.
const RATE_MEMORY: Duration = Duration::from_secs(10);

/// The reason of a stop by a panic, in the metrics.
const PANICKED: &str = "panicked";

/// The progress of a processor. Cheap to clone; it may outlive the processor.
///
/// Position and lag are those of the last commit or read of this processor. When it has
/// [stopped](Self::state) they do not change any more:
/// [`consumer_lag`](es_core::TrackingRecorderExt::consumer_lag) reads both from the recorders.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    position: AtomicI64,
    lag: AtomicI64,
    processed: AtomicU64,
    rate: Mutex<Rate>,
    state: Mutex<ProcessorState>,
}

/// The state of a processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessorState {
    /// It has not been run.
    #[default]
    NotStarted,
    /// It is running.
    Running,
    /// It ended: it was [stopped](crate::Processor::stop_handle), or the upstream recorder was closed.
    Ended,
    /// It was cancelled: the future of its run was dropped.
    Cancelled,
    /// It failed, or panicked. The text has the messages of the error and of its sources.
    Failed(Arc<str>),
}

/// An exponentially weighted moving average of notifications per second.
#[derive(Debug, Default)]
struct Rate {
    per_second: f64,
    at: Option<Instant>,
}

impl Progress {
    /// Returns the id up to which every notification is processed; 0 before the first, and before the
    /// processor has read its position.
    pub fn position(&self) -> i64 {
        self.0.position.load(Ordering::Relaxed)
    }

    /// Returns the distance in ids from the position to the end of the upstream log, when that was last
    /// read; 0 when the processor had caught up. It is an upper bound of the notifications left, as ids
    /// have gaps and other topics count.
    pub fn lag(&self) -> i64 {
        self.0.lag.load(Ordering::Relaxed)
    }

    /// Returns the number of notifications that this processor has processed since it was made.
    pub fn processed(&self) -> u64 {
        self.0.processed.load(Ordering::Relaxed)
    }

    /// Returns the notifications per second, averaged over about the last ten seconds.
    pub fn rate(&self) -> f64 {
        let rate = self.0.rate.lock();
        rate.at.map_or(0.0, |at| rate.per_second * remaining(at.elapsed()))
    }

    /// Returns the state, with the error that stopped the processor.
    pub fn state(&self) -> ProcessorState {
        self.0.state.lock().clone()
    }

    fn set_state(&self, state: ProcessorState) {
        *self.0.state.lock() = state;
    }

    pub(crate) fn moved(&self, position: i64, end: i64) {
        self.0.position.store(position, Ordering::Relaxed);
        self.0.lag.store(end.saturating_sub(position).max(0), Ordering::Relaxed);
    }

    pub(crate) fn processed_more(&self, notifications: usize) {
        self.0.processed.fetch_add(notifications as u64, Ordering::Relaxed);
        let mut rate = self.0.rate.lock();
        let now = Instant::now();
        let kept = rate.at.map_or(0.0, |at| rate.per_second * remaining(now.duration_since(at)));
        rate.per_second = kept + notifications as f64 / RATE_MEMORY.as_secs_f64();
        rate.at = Some(now);
    }
}

/// Reports the beginning of a run, and its end when dropped.
pub(crate) struct RunGuard<'a> {
    progress: &'a Progress,
    metrics: &'a Metrics,
    end: (ProcessorState, &'static str),
}

impl<'a> RunGuard<'a> {
    pub(crate) fn new(progress: &'a Progress, metrics: &'a Metrics) -> Self {
        progress.set_state(ProcessorState::Running);
        metrics.started();
        Self { progress, metrics, end: (ProcessorState::Cancelled, "cancelled") }
    }

    /// Reports the result of the run. Without it, the run was cancelled.
    pub(crate) fn finish(mut self, result: &Result<(), ProcessorError>) {
        self.end = match result {
            Ok(()) => (ProcessorState::Ended, "ended"),
            Err(error) => {
                let reason = match error {
                    ProcessorError::Handler { .. } => "handler",
                    ProcessorError::Persistence { .. } => "persistence",
                    ProcessorError::Aborted { .. } => PANICKED,
                };
                (ProcessorState::Failed(messages(error).into()), reason)
            }
        };
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        let (mut state, mut reason) = std::mem::take(&mut self.end);
        if state == ProcessorState::Cancelled && thread::panicking() {
            (state, reason) = (ProcessorState::Failed("the processor panicked".into()), PANICKED);
        }
        self.progress.set_state(state);
        self.metrics.stopped(reason);
    }
}

/// Returns the messages of an error and its sources, separated by colons.
fn messages(error: &ProcessorError) -> String {
    let first: &(dyn Error + 'static) = error;
    let messages = successors(Some(first), |error| (*error).source()).map(ToString::to_string);
    messages.collect::<Vec<_>>().join(": ")
}

/// Returns the share of the average that is left after an idle time.
fn remaining(idle: Duration) -> f64 {
    (-idle.as_secs_f64() / RATE_MEMORY.as_secs_f64()).exp()
}

//! The settings of a worker.

use std::{num::NonZeroU16, time::Duration};

use es_core::{BoxFuture, Segment, StopHandle};
use parking_lot::Mutex;

use super::consumer::{KeyHash, SegmentConsumer};
use crate::{Processor, Progress};

/// The settings of a worker.
pub(super) struct Settings<U, L, C> {
    pub(super) name: String,
    pub(super) upstream: U,
    /// The recorder of the segments.
    pub(super) leases: L,
    /// In a mutex for a worker that is `Sync`; it is never contended.
    pub(super) make: Mutex<MakeConsumer<C>>,
    pub(super) configure: Configure<U, C>,
    pub(super) key_hash: KeyHash,
    pub(super) segments: NonZeroU16,
    pub(super) lease: Duration,
    pub(super) concurrency: usize,
    pub(super) progress: Progress,
    pub(super) stop: StopHandle,
}

/// Makes the consumer of a segment.
pub(super) type MakeConsumer<C> = Box<dyn FnMut(Segment) -> BoxFuture<'static, C> + Send>;

/// Configures the processor of a segment.
pub(super) type Configure<U, C> =
    Box<dyn Fn(Processor<U, SegmentConsumer<C>>) -> Processor<U, SegmentConsumer<C>> + Send + Sync>;

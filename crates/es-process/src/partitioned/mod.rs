//! Partitioned consumers: one consumer on many workers.

mod consumer;
mod hash;
mod lease;
mod processor;
mod settings;
mod worker;

pub use consumer::SegmentConsumer;
pub use hash::key_hash;
pub use processor::{DEFAULT_LEASE, DEFAULT_SEGMENTS, PartitionedProcessor};

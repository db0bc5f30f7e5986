//! `es segments`.

use clap::{Args, Subcommand};

use super::options::{Change, Connection, Formatting};

/// List, split or merge the segments of a partitioned consumer
///
/// Workers may run meanwhile: they lose a segment that is changed, and claim what it becomes.
#[derive(Debug, Subcommand)]
pub(crate) enum Segments {
    List(SegmentsList),
    /// Split a segment into two of equal ranges, at its position
    Split(SegmentsChange),
    /// Merge a segment with the next one, when their positions are equal, as at the end of the log
    Merge(SegmentsChange),
}

/// List the segments of a consumer, with their positions and workers
#[derive(Debug, Args)]
pub(crate) struct SegmentsList {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The database whose log the consumer follows, if it is another one
    #[arg(long, value_name = "DATABASE")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// A segment of a consumer.
#[derive(Debug, Args)]
pub(crate) struct SegmentsChange {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The segment: its lowest hash, as `es segments list` prints it
    #[arg(value_name = "SEGMENT")]
    pub(crate) segment: String,
    /// Wait so many seconds until no worker records the position, and those of segments to merge are equal
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) wait: u64,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

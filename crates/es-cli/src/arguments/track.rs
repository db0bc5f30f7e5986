//! `es track`.

use clap::{Args, Subcommand};

use super::options::{Change, Connection};

/// Change the positions of consumers
///
/// Stop the consumer first: a running one keeps its position in memory. A consumer whose position is moved
/// back processes the notifications in between again.
#[derive(Debug, Subcommand)]
pub(crate) enum Track {
    Set(TrackSet),
    Reset(TrackReset),
}

/// Set the position of a consumer, forward or back
#[derive(Debug, Args)]
pub(crate) struct TrackSet {
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumer: String,
    /// The id up to which notifications count as processed
    #[arg(value_name = "POSITION")]
    pub(crate) position: i64,
    /// Also for a consumer that has no position
    #[arg(long)]
    pub(crate) create: bool,
    /// The database whose log the consumer follows: a URL or a context; by default the same database
    #[arg(help_heading = "Database", long, value_name = "DATABASE")]
    pub(crate) upstream: Option<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Delete the positions of consumers, which then begin before the first notification
#[derive(Debug, Args)]
pub(crate) struct TrackReset {
    #[arg(value_name = "CONSUMER", required = true)]
    pub(crate) consumers: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

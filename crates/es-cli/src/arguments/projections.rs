//! `es projections`.

use clap::{Args, Subcommand};

use super::options::{Change, Connection, Formatting};

/// List the versions of projections, and switch between them
///
/// Processors may run meanwhile: those of a version that is replaced or paused commit nothing.
#[derive(Debug, Subcommand)]
pub(crate) enum Projections {
    List(ProjectionsList),
    Switch(ProjectionsSwitch),
    Rollback(ProjectionsRollback),
    /// Stop the commits of a version until it is resumed
    Pause(ProjectionVersion),
    /// Let a version commit again
    Resume(ProjectionVersion),
    /// Delete the rows and the position of a version, which then processes all notifications again
    ///
    /// Readers see the rows of the active version grow again. Side effects are not repeated. Start processors
    /// of the version that have ended.
    Reset(ProjectionVersion),
    /// Build a version that is not read again, from the first notification, to switch to it later
    ///
    /// Start processors of the version that have ended. To rebuild the active version behind its readers, add
    /// a version to the program, and switch to it.
    Rebuild(ProjectionVersion),
    /// Drop the tables and the position of a version; its number is not used again
    Drop(ProjectionVersion),
}

/// List the versions of projections, with their states and positions
#[derive(Debug, Args)]
pub(crate) struct ProjectionsList {
    /// Only these projections; the exit code is 5 if one of them does not exist
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Make a version the one that is read and has side effects, in one commit
#[derive(Debug, Args)]
pub(crate) struct ProjectionsSwitch {
    /// The projection
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The number of the version, as `es projections list` prints it
    #[arg(value_name = "VERSION")]
    pub(crate) version: u32,
    /// The largest distance to the active version, in notification ids, by which readers may go back
    #[arg(long, value_name = "IDS", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) max_lag: i64,
    /// Pause the active version, and wait so many seconds until the other one has caught up
    #[arg(long, value_name = "SECONDS", conflicts_with = "max_lag")]
    pub(crate) wait: Option<u64>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// Switch back to the version that the active one has replaced
#[derive(Debug, Args)]
pub(crate) struct ProjectionsRollback {
    /// The projection
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// A version of a projection.
#[derive(Debug, Args)]
pub(crate) struct ProjectionVersion {
    /// The projection
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The number of the version, as `es projections list` prints it
    #[arg(value_name = "VERSION")]
    pub(crate) version: u32,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) change: Change,
}

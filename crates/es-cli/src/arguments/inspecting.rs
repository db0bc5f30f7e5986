//! `es info`, `log`, `show`, `topics`, `top`, `trackers`, `ui` and `verify`.

use clap::Args;
use es_core::uuid::Uuid;

use super::options::{Connection, EventFormatting, Formatting};
use crate::catalog::Order;

/// Print the backend, the layout, counts, the size, the head and the consumers of a database
#[derive(Debug, Args)]
pub(crate) struct Info {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Print the log: the events in their total order
///
/// The log is read up to its end at the start of the command, in bounded memory. A state that cannot be
/// decoded is printed as an error; the exit code is then 4.
#[derive(Debug, Args)]
pub(crate) struct Log {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Begin after this notification id; `end` is the end of the log
    #[arg(long, value_name = "ID", default_value = "0")]
    pub(crate) after: Position,
    /// Stop after this notification id
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    pub(crate) until: Option<i64>,
    /// Print only events of this topic; can be repeated
    #[arg(long = "topic", value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,
    /// Print at most this number of events
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
    /// Wait for further events
    #[arg(long, short)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) formatting: EventFormatting,
}

/// A position in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    Id(i64),
    End,
}

impl std::str::FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "end" => Ok(Self::End),
            _ => text.parse().map(Self::Id).map_err(|_| "expected a notification id, or `end`".to_owned()),
        }
    }
}

/// Print the events of an aggregate
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The id of the aggregate
    #[arg(value_name = "ORIGINATOR")]
    pub(crate) originator_id: Uuid,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Stop after this version
    #[arg(long, value_name = "VERSION")]
    pub(crate) at: Option<i64>,
    #[command(flatten)]
    pub(crate) formatting: EventFormatting,
}

/// Print the topics of the log with the numbers and the sizes of their events
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Show the largest and the busiest aggregates, on a screen that follows the log
///
/// Keys: e, r and s sort by events, by recent events and by their size; the arrows and the page keys scroll;
/// q ends. The recent events are those of the last notification ids. While the log grows, it is read again
/// every second, or less often: a read takes at most a tenth of the time.
#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Sort by the number of events, of recent events, or by their size: events, recent or size
    #[arg(long, value_name = "ORDER", default_value = "events", hide_possible_values = true)]
    pub(crate) sort: Order,
    /// The number of notification ids at the end of the log whose events are recent
    #[arg(long, value_name = "IDS", default_value_t = 10_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub(crate) window: i64,
    /// List at most this number of aggregates
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100,
        value_parser = clap::value_parser!(i64).range(1..=10_000))]
    pub(crate) limit: i64,
    /// Print the aggregates once, one JSON object a line, and end
    #[arg(help_heading = "Output", long)]
    pub(crate) once: bool,
}

/// Print the positions of consumers and their distances to the end of the log
///
/// The exit code is 4 if a consumer is further behind than --max-lag, or ahead of the log.
#[derive(Debug, Args)]
pub(crate) struct Trackers {
    /// Only these consumers; the exit code is 5 if one of them has no position
    #[arg(value_name = "CONSUMER")]
    pub(crate) consumers: Vec<String>,
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// The largest distance, in notification ids, that is not a finding
    #[arg(long, value_name = "IDS")]
    pub(crate) max_lag: Option<i64>,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Serve a local web page to look at a database
///
/// Prints the URL of the page, which has a random token, and serves it until Ctrl-C. The page changes
/// nothing, and only programs of this machine that know the token can read it.
#[cfg(feature = "ui")]
#[derive(Debug, Args)]
pub(crate) struct Ui {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// Listen on this port of 127.0.0.1; by default on a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Open the page in the browser
    #[arg(long)]
    pub(crate) open: bool,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

/// Check a database: rows, versions, ids, positions, snapshots and the database itself
///
/// Prints each finding, and at the end the digests of the log, by which copies are compared. The exit code is
/// 4 if there are findings.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The database whose log the consumers follow: a URL or a context; by default the same database
    #[arg(long, value_name = "DATABASE", help_heading = "Database")]
    pub(crate) upstream: Option<String>,
    /// Do not check the positions of consumers
    #[arg(long, conflicts_with = "upstream")]
    pub(crate) no_trackers: bool,
    /// Do not decode states; the digests are then those of the stored bytes
    #[arg(long)]
    pub(crate) raw: bool,
    /// The version with which each aggregate begins
    #[arg(long, value_name = "VERSION", default_value_t = 1)]
    pub(crate) first_version: i64,
    /// A digest of an earlier run, or of a copy; another digest is a finding
    #[arg(long, value_name = "DIGEST")]
    pub(crate) expect_digest: Option<String>,
    #[command(flatten)]
    pub(crate) formatting: Formatting,
}

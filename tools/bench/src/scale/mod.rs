//! The costs of an event as the log grows: bytes, pages and log records, which do not depend on the speed of
//! a machine, beside a model of them.

mod followers;
mod log;
mod model;
mod page;
mod plot;
mod postgres;
mod sqlite;

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub(crate) use self::page::{tables, write_page};
use crate::data::Ids;

/// The numbers of stored events at which the costs are measured.
const AMOUNTS: [usize; 5] = [100_000, 1_000_000, 10_000_000, 30_000_000, 100_000_000];
/// Events appended, and aggregates loaded, for a measurement.
const REPEATED: usize = 2_000;
/// Events of a page of the log.
const PAGE: usize = 1_000;

/// A cost of an event or of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Cost {
    /// Bytes of the table per event.
    TableBytes,
    /// Bytes of the index of originator ids and versions per event.
    KeyBytes,
    /// Bytes of the index of notification ids per event.
    IdBytes,
    /// Pages from the root to a leaf of the index of originator ids and versions.
    KeyLevels,
    /// Pages looked at by an append of one event.
    AppendPages,
    /// Pages that an append of one event found outside of the server's cache.
    AppendReads,
    /// Bytes written to the write-ahead log by an append of one event.
    AppendLog,
    /// Images of whole pages written to the write-ahead log by an append of one event.
    AppendImages,
    /// Pages looked at by a load of an aggregate of ten events.
    LoadPages,
    /// Pages that such a load found outside of the server's cache.
    LoadReads,
    /// Pages looked at by a read of 1,000 notifications.
    ReadPages,
}

/// The measured costs of one log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) backend: String,
    pub(crate) ids: Ids,
    /// Events stored before.
    pub(crate) stored: usize,
    pub(crate) costs: Vec<(Cost, f64)>,
}

/// The statements that subscribers cause on the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FollowingSample {
    pub(crate) processes: usize,
    /// Subscribers in each process.
    pub(crate) subscribers: usize,
    /// Statements for each commit, each of which all subscribers have received before the next.
    pub(crate) per_commit: f64,
    /// Statements per second without commits.
    pub(crate) idle_per_second: f64,
}

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measurements {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) server: String,
    pub(crate) samples: Vec<Sample>,
    pub(crate) following: Vec<FollowingSample>,
}

/// Measures logs of up to so many events. The database files are made in `directory`.
pub(crate) async fn measure(up_to: usize, directory: &Path, date: String) -> Result<Measurements> {
    let following = followers::measure().await?;
    let mut samples = Vec::new();
    for ids in [Ids::Random, Ids::TimeOrdered] {
        for stored in AMOUNTS.into_iter().filter(|stored| *stored <= up_to) {
            println!("{stored} events with {} ids", ids.name());
            samples.push(sqlite::measure(directory, ids, stored).await?);
            samples.push(postgres::measure(ids, stored).await?);
        }
    }
    let server = postgres::settings().await?;
    Ok(Measurements { date, commit: crate::machine::commit(), server, samples, following })
}

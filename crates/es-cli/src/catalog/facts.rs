//! The facts that a catalog returns.

use es_core::Segment;
#[cfg(feature = "ui")]
use es_core::uuid::Uuid;
use serde::Serialize;

/// The facts about a database.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) backend: &'static str,
    /// The version of the database's software.
    pub(crate) version: String,
    /// The file, or the host, the database and the schema.
    pub(crate) location: String,
    /// The size of the file, or of the tables with their indexes.
    pub(crate) bytes: i64,
    /// The setting `journal_mode` of SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) journal_mode: Option<String>,
    pub(crate) events: EventCounts,
    /// The number of snapshots, if there is a table of them.
    pub(crate) snapshots: Option<i64>,
    /// The layout of the tracking table, if there is one.
    pub(crate) tracking_layout: Option<Layout>,
    pub(crate) trackers: Vec<Tracker>,
}

/// The extent of the log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct EventCounts {
    pub(crate) table: String,
    pub(crate) count: i64,
    pub(crate) aggregates: i64,
    pub(crate) topics: i64,
    pub(crate) first_id: Option<i64>,
    pub(crate) last_id: Option<i64>,
}

/// The layout of the tracking table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// One row for each application: version 9.5 of the Python library, and this library.
    RowPerApplication,
    /// One row for each tracking record: version 9.1.
    RowPerRecord,
}

/// The position of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tracker {
    pub(crate) name: String,
    pub(crate) position: i64,
}

impl Tracker {
    /// Returns whether the position is one of a segment of these consumers, also one that has ended.
    pub(crate) fn is_of_segment(&self, consumers: &[String]) -> bool {
        consumers.iter().any(|consumer| {
            let rest = self.name.strip_prefix(consumer).and_then(|rest| rest.strip_prefix('/'));
            let Some((hash, epoch)) = rest.and_then(|rest| rest.split_once('/')) else { return false };
            let (Ok(hash), Ok(epoch)) = (i64::from_str_radix(hash, 16), epoch.parse()) else { return false };
            Segment::new(hash, hash, epoch, None, self.position).tracking_name(consumer) == self.name
        })
    }
}

/// The events of one topic.
#[derive(Debug, Serialize)]
pub(crate) struct TopicCount {
    pub(crate) topic: String,
    pub(crate) count: i64,
    pub(crate) first_id: i64,
    pub(crate) last_id: i64,
    /// The total size of the stored states.
    pub(crate) bytes: i64,
}

/// A selection of notification ids.
#[cfg(feature = "ui")]
#[derive(Clone, Debug)]
pub(crate) struct IdSelection {
    /// Only events of this aggregate.
    pub(crate) originator_id: Option<Uuid>,
    /// Only events of this topic.
    pub(crate) topic: Option<String>,
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// The order, and with it the end at which the limit applies.
    pub(crate) is_descending: bool,
    pub(crate) limit: usize,
}

/// The result of the database's own check.
#[derive(Debug, Default)]
pub(crate) struct Integrity {
    pub(crate) damage: Vec<String>,
    /// The part that could not be checked, with the reason.
    pub(crate) not_checked: Option<String>,
}

/// A version of an aggregate that does not follow the one before it.
#[derive(Debug)]
pub(crate) struct Gap {
    pub(crate) originator_id: String,
    pub(crate) version: i64,
    /// The version before it; `None` if it is the first.
    pub(crate) previous: Option<i64>,
}

/// A snapshot of a version that its aggregate does not have.
#[derive(Debug)]
pub(crate) struct SnapshotFault {
    pub(crate) originator_id: String,
    pub(crate) version: i64,
    /// The last version of the aggregate; `None` if it has no events.
    pub(crate) last: Option<i64>,
}

impl Layout {
    pub(super) fn of_key_columns(columns: i64) -> Self {
        if columns > 1 { Self::RowPerRecord } else { Self::RowPerApplication }
    }
}

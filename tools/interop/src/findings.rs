//! The findings of participants, in the same JSON from both languages.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The findings of a writer.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Written {
    /// Optimistic writes that were refused, each for a reason that the writer has looked up.
    pub(crate) conflicts: u64,
    /// Accounts and versions of which the writer took snapshots.
    pub(crate) snapshots: Vec<(String, i64)>,
}

/// The findings of a follower: the log as it was read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Followed {
    pub(crate) log: Vec<Logged>,
}

/// The findings of a processor.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Processed {
    pub(crate) processed: u64,
    pub(crate) conflicts: u64,
}

/// Everything that is recorded, as one language reads it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) log: Vec<Logged>,
    pub(crate) accounts: Vec<AccountReport>,
    pub(crate) ledger: Vec<Logged>,
    /// The ledger's position in the bank's notifications.
    pub(crate) position: i64,
}

/// A notification, its event decoded.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Logged {
    pub(crate) id: i64,
    pub(crate) originator_id: String,
    pub(crate) version: i64,
    pub(crate) topic: String,
    pub(crate) timestamp: Value,
    pub(crate) attributes: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct AccountReport {
    pub(crate) id: String,
    pub(crate) version: i64,
    /// The state by the newest snapshot and the events after it.
    pub(crate) loaded: Value,
    /// The state by all events.
    pub(crate) replayed: Value,
    pub(crate) snapshots: Vec<SnapshotReport>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct SnapshotReport {
    pub(crate) version: i64,
    /// The state in the snapshot.
    pub(crate) kept: Value,
    /// The state by the events.
    pub(crate) replayed: Value,
}

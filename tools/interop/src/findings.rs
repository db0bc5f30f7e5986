//! What participants tell of what they did and saw, in the same JSON from both languages.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a writer tells.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Written {
    /// Optimistic writes that were refused, each for a reason that the writer has looked up.
    pub(crate) conflicts: u64,
    /// Accounts and versions of which the writer took snapshots.
    pub(crate) snapshots: Vec<(String, i64)>,
}

/// What a follower tells: the log as it met it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Followed {
    pub(crate) log: Vec<Logged>,
}

/// What a processor tells.
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
    /// How far the ledger has processed the bank's notifications.
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
    /// By the newest snapshot and what follows it.
    pub(crate) loaded: Value,
    /// By all events.
    pub(crate) replayed: Value,
    pub(crate) snapshots: Vec<SnapshotReport>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct SnapshotReport {
    pub(crate) version: i64,
    /// What the snapshot says.
    pub(crate) kept: Value,
    /// What the events say.
    pub(crate) replayed: Value,
}

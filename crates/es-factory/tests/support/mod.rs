//! Shared code of this crate's tests.

#[cfg(feature = "postgres")]
#[allow(dead_code, reason = "not every test uses it")]
pub(crate) mod server;

use es_core::{Bytes, StoredEvent, Topic, uuid::Uuid};

#[allow(dead_code, reason = "not every test uses it")]
pub(crate) fn event(version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::from_u128(1),
        originator_version: version,
        topic: Topic::from_static("bank:Account.Opened"),
        state: Bytes::from_static(b"{}"),
    }
}

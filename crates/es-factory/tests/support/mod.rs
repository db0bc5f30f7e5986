//! Shared code of this crate's tests.

use es_core::{Bytes, StoredEvent, Topic, uuid::Uuid};

pub(crate) fn event(version: i64) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::from_u128(1),
        originator_version: version,
        topic: Topic::from_static("bank:Account.Opened"),
        state: Bytes::from_static(b"{}"),
    }
}

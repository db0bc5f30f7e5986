//! Adapters, one per measured system.

pub(crate) mod bare_json;
pub(crate) mod bare_postgres;
pub(crate) mod bare_sqlite;
pub(crate) mod followers;
pub(crate) mod hash_map;
pub(crate) mod memory_use;
pub(crate) mod peers;
pub(crate) mod postgres_schema;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod python;
pub(crate) mod recorder;
pub(crate) mod workers;

use uuid::Uuid;

/// An event with owned values.
struct OwnedEvent {
    #[expect(dead_code, reason = "decoding it is part of the work")]
    originator_id: Uuid,
    #[expect(dead_code, reason = "decoding it is part of the work")]
    originator_version: i64,
    #[expect(dead_code, reason = "decoding it is part of the work")]
    topic: String,
    #[expect(dead_code, reason = "decoding it is part of the work")]
    state: Vec<u8>,
}

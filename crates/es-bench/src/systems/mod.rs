//! One adapter per system that is measured.

pub(crate) mod bare_json;
pub(crate) mod bare_postgres;
pub(crate) mod bare_sqlite;
pub(crate) mod hash_map;
pub(crate) mod recorder;

//! One adapter per system that is measured.

pub(crate) mod bare_json;
pub(crate) mod bare_postgres;
pub(crate) mod bare_sqlite;
pub(crate) mod hash_map;
pub(crate) mod postgres_schema;
pub(crate) mod processes;
pub(crate) mod recorder;

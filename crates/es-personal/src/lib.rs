//! Personal values in events.

mod cache;
mod format;
mod keys;
mod memory;
mod personal;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod subject;
mod transcoding;
mod wrapper;

pub use keys::SubjectKeys;
pub use memory::MemoryKeyStore;
pub use personal::Personal;
#[cfg(feature = "postgres")]
pub use postgres::PostgresKeyStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteKeyStore;
pub use store::{Erasure, KeyRecord, KeyStore, WrappedKey};
pub use subject::Subject;
pub use wrapper::KeyWrapper;

//! Builds recorders, mappers and event stores from environment variables.
//!
//! The features of the crate define the parts of a program at compile time. The environment selects among
//! them at run time, by the same variables, with the same meaning, as those of the Python `eventsourcing`
//! library, so that one `.env` serves processes in both languages.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `PERSISTENCE_MODULE`, else `INFRASTRUCTURE_FACTORY` | `popo`, with a warning | the backend |
//! | `COMPRESSOR_TOPIC` | none | the compressor |
//! | `CIPHER_TOPIC`, `CIPHER_KEY` | none | the cipher; a key alone means AES |
//! | `CIPHER_KEYS`, `CIPHER_KEYS_FILE` | none | a key ring: `ID:BASE64`, separated by commas; or a file |
//! | `CIPHER_PRIMARY_KEY_ID` | the first | the key of the ring that encrypts |
//! | `CIPHER_ALGORITHM` | `aes-256-gcm` | or `xaes-256-gcm`, for a key ring |
//! | `PERSONAL_KEYS_URL` | none | the key store of personal values: `sqlite:PATH` or `postgres://…` |
//! | `PERSONAL_KEYS_MAX_AGE` | 60 | the seconds after which a subject's key in memory expires |
//! | `IS_SNAPSHOTTING_ENABLED` | no | enables the [snapshot store](InfrastructureFactory::snapshot_store) |
//! | `CREATE_TABLE` | yes | recorders create missing tables |
//! | `ORIGINATOR_ID_TYPE` | `uuid` | nothing else is supported yet |
//!
//! The accepted names are the [registered](Registry) ones and these:
//! - backends: `memory` or `popo`, `sqlite`, `postgres`, and their Python topics (`eventsourcing.sqlite`,
//!   also with `:Factory`);
//! - compressors: `zlib`, `zstd`, `eventsourcing.compressor:ZlibCompressor`;
//! - ciphers: `aes`, `eventsourcing.cipher:AESCipher`, `eventsourcing.cryptography:AESCipher`; `key-ring`,
//!   whose legacy key is `CIPHER_KEY`.
//!
//! Personal values need the feature `personal` and a key ring, whose keys wrap those of the data subjects.
//! `PERSONAL_KEYS_URL` has the form of `DATABASE_URL`; take another database than that of the events.
//!
//! [`Environment`] lists the variables of the backends. Every name is looked up with the application's
//! name first: for the application `Bank`, `BANK_CIPHER_KEY` before `CIPHER_KEY`.
//!
//! A factory logs a warning (`tracing`) if no backend is set, since events in memory do not survive the
//! process, and for each variable whose name is like one of these, such as `PERSISTANCE_MODULE`.
//!
//! # Example
//! ```
//! use es_factory::InfrastructureFactory;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), es_core::PersistenceError> {
//! let factory = InfrastructureFactory::builder("Bank")
//!     .environment([("PERSISTENCE_MODULE", "popo"), ("COMPRESSOR_TOPIC", "zlib")])
//!     .build()?;
//! let store = factory.event_store().await?;
//! # let _ = store;
//! # Ok(())
//! # }
//! ```

mod backend;
mod database_url;
mod environment;
mod factory;
#[cfg(feature = "aes")]
mod key_ring;
mod password_provider;
#[cfg(feature = "personal")]
mod personal;
#[cfg(feature = "popo")]
mod popo;
#[cfg(feature = "postgres")]
mod postgres;
mod registry;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod typos;
mod versions;

pub use backend::Backend;
pub use environment::Environment;
pub use factory::{FactoryBuilder, InfrastructureFactory};
pub use password_provider::PasswordProvider;
#[cfg(feature = "personal")]
pub use personal::EnvironmentKeyStore;
pub use registry::Registry;
pub use sql::{BoxConsumer, DynSqlProjection, Sql, SqlProjection, SqlProjector, SqlRow, SqlValue};
pub use versions::{
    ProjectionContext, ProjectionVersion, Projections, VersionState, VersionedProjection, VersionedProjector,
};

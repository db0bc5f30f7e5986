//! Builds recorders, mappers and event stores from environment variables.
//!
//! Which parts a program has is decided when it is compiled, by features. Which of them it uses is
//! decided when it runs, by its environment: the same variables, with the same meaning, as those of
//! the Python `eventsourcing` library, so that one `.env` serves processes in both languages.
//!
//! | variable | default | meaning |
//! |---|---|---|
//! | `PERSISTENCE_MODULE`, else `INFRASTRUCTURE_FACTORY` | `popo` | `popo`, `sqlite`, `postgres`, their Python topics (`eventsourcing.sqlite`, also with `:Factory`), or a [registered](Registry) name |
//! | `COMPRESSOR_TOPIC` | none | `zlib`, `zstd`, `eventsourcing.compressor:ZlibCompressor`, or a registered name |
//! | `CIPHER_TOPIC`, `CIPHER_KEY` | none | `aes`, `eventsourcing.cipher:AESCipher`, `eventsourcing.cryptography:AESCipher`, or a registered name; a key alone means AES |
//! | `IS_SNAPSHOTTING_ENABLED` | no | whether there is a [snapshot store](InfrastructureFactory::snapshot_store) |
//! | `CREATE_TABLE` | yes | whether recorders create the tables that are missing |
//! | `ORIGINATOR_ID_TYPE` | `uuid` | nothing else is supported yet |
//!
//! The variables of the backends stand with [`Environment`]. Every name is looked up with the
//! application's name first: for the application `Bank`, `BANK_CIPHER_KEY` before `CIPHER_KEY`.
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
mod environment;
mod factory;
#[cfg(feature = "popo")]
mod popo;
#[cfg(feature = "postgres")]
mod postgres;
mod registry;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use backend::Backend;
pub use environment::Environment;
pub use factory::{FactoryBuilder, InfrastructureFactory};
pub use registry::Registry;

//! An async event store: stores and retrieves domain events in memory, SQLite and PostgreSQL.
//!
//! Event sourcing stores the sequence of events instead of the current state. This library stores those
//! events. It is the Rust counterpart of the persistence module of Python's `eventsourcing` library, and
//! reads and writes the same databases.
//!
//! Two promises come first: **no reader ever misses an event or receives one twice, and an acknowledged write
//! is never lost.**
//!
#![doc = include_str!("overview.svg")]
//!
//! Most programs begin with `use es_persistence::prelude::*;` (the module [`prelude`]).
//!
//! # The parts
//! - An [`EventStore`] puts a [`Mapper`] in front of a recorder.
//! - The mapper converts a [`DomainEvent`] to a [`StoredEvent`] and back: transcoder, then compressor,
//!   then cipher.
//! - The recorder stores the events, in memory, in SQLite or in PostgreSQL. An [`AggregateRecorder`]
//!   stores the events of aggregates by version, with optimistic concurrency. An
//!   [`ApplicationRecorder`] adds a total order. A [`ProcessRecorder`] adds, in the same commit, the
//!   position up to which the notifications of another application have been processed: exactly once.
//! - A factory builds them all from environment variables.
//!
//! # A first event
#![cfg_attr(all(feature = "derive", feature = "memory"), doc = "```")]
#![cfg_attr(not(all(feature = "derive", feature = "memory")), doc = "```ignore")]
//! use es_persistence::{memory::PopoApplicationRecorder, prelude::*};
//!
//! #[derive(Clone, Debug, PartialEq, Event)]
//! #[event(topic = "bank:Account")]
//! enum AccountEvent {
//!     Opened { owner: String },
//!     Credited { cents: u64 },
//!     Closed,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PersistenceError> {
//! let store = EventStore::new(PopoApplicationRecorder::new(), Mapper::new(JsonTranscoder::new()));
//!
//! let account = Uuid::now_v7();
//! let opened = AccountEvent::Opened { owner: "Alice".to_owned() };
//! let credited = AccountEvent::Credited { cents: 1_250 };
//! store.append(account, Expected::New, [opened.clone(), credited.clone()]).await?;
//!
//! let events = store.get::<AccountEvent>(account, EventRange::all()).await?;
//! assert_eq!((events[0].originator_version, &events[0].payload), (1, &opened));
//! assert_eq!((events[1].originator_version, &events[1].payload), (2, &credited));
//!
//! // Optimistic concurrency: version 2 is already recorded.
//! let late = store.append(account, Expected::Version(1), [AccountEvent::Closed]).await;
//! assert!(late.is_err_and(|error| error.is_conflict()));
//! # Ok(())
//! # }
//! ```
//!
//! # The guide
//! The module `guide` is a book, from a new crate to deployment: events that change, aggregates and commands,
//! the log and its consumers, errors, testing, and a how-to index. It is compiled with all features.
//!
//! # With the Python library
//! Processes in Rust and in Python can share a database: append to the same aggregates, follow the same
//! log, and continue from each other's snapshots and positions. Note:
//! - Version 9.1 records tracking positions only in a table that it has created itself; this library uses
//!   that table as it is. If 9.1 is to process notifications, let it create the tables.
//! - On PostgreSQL, keep the default ordering, and `POSTGRES_ENABLE_DB_FUNCTIONS` of version 9.5 off:
//!   otherwise the Python library's readers, and with the latter all readers, can miss events.
//! - On PostgreSQL, subscriptions of version 9.5 wait for `NOTIFY`, which is sent with `POSTGRES_NOTIFY` on.
//!
//! # Features
//! A feature adds a part, and never changes another part.
//!
//! | feature | default | part |
//! |---|---|---|
//! | `memory` | yes | recorders in memory: [`memory`]; also called [`popo`], as in the Python library |
//! | `sqlite` | yes | recorders on SQLite, which is compiled in: [`sqlite`] |
//! | `postgres` | | recorders on PostgreSQL: [`postgres`] |
//! | `sqlx` | | appends inside your own `sqlx` transactions on SQLite too |
//! | `tls` | | encrypted connections to PostgreSQL |
//! | `json` | yes | the JSON transcoder: [`transcode`] |
//! | `chrono`, `jiff`, `rust-decimal` | | types of these libraries in events: [`transcode`] |
//! | `zlib` | yes | the zlib compressor: [`compress`] |
//! | `zstd` | | the zstd compressor: [`compress`] |
//! | `aes` | yes | the AES-GCM cipher: [`crypto`] |
//! | `personal` | | personal values with a key per data subject: [`personal`] |
//! | `derive` | yes | [`derive(Event)`](derive@Event) |
//! | `factory` | yes | the infrastructure factory: [`factory`] |
//! | `process` | yes | processors, for exactly-once processing: [`process`] |
//! | `metrics` | | metrics of processors, by the `metrics` facade |
//! | `opentelemetry` | | spans of consumers, linked to those of producers |
//! | `aggregate` | | aggregates and repositories: [`aggregate`] |
//! | `blocking` | | an event store for synchronous callers: [`blocking`] |
//!
//! Each part is also a crate of its own (`es-core`, `es-sqlite`, …).

// The features that its snippets need.
#[cfg(all(
    feature = "aes",
    feature = "aggregate",
    feature = "blocking",
    feature = "derive",
    feature = "factory",
    feature = "memory",
    feature = "personal",
    feature = "postgres",
    feature = "process",
    feature = "sqlite",
    feature = "zlib"
))]
pub mod guide;
pub mod prelude;

#[cfg(feature = "aggregate")]
#[doc(inline)]
pub use es_aggregate as aggregate;
#[cfg(feature = "blocking")]
#[doc(inline)]
pub use es_blocking as blocking;
#[cfg(any(feature = "zlib", feature = "zstd"))]
#[doc(inline)]
pub use es_compress as compress;
#[doc(inline)]
pub use es_core::*;
#[cfg(feature = "aes")]
#[doc(inline)]
pub use es_crypto as crypto;
#[cfg(feature = "derive")]
#[doc(inline)]
pub use es_derive::Event;
#[cfg(feature = "factory")]
#[doc(inline)]
pub use es_factory as factory;
#[cfg(feature = "personal")]
#[doc(inline)]
pub use es_personal as personal;
#[cfg(feature = "memory")]
#[doc(inline)]
pub use es_popo as memory;
/// The Python library's name of [`memory`].
#[cfg(feature = "memory")]
#[doc(no_inline)]
pub use es_popo as popo;
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use es_postgres as postgres;
#[cfg(feature = "process")]
#[doc(inline)]
pub use es_process as process;
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use es_sqlite as sqlite;
#[cfg(feature = "json")]
#[doc(inline)]
pub use es_transcode as transcode;
/// The library of your own transactions and of projections on PostgreSQL, with the features `postgres` and
/// `sqlx`.
#[cfg(any(feature = "postgres", feature = "sqlx"))]
pub use sqlx;

/// The examples of the README, compiled and run.
#[cfg(all(
    doctest,
    feature = "derive",
    feature = "factory",
    feature = "process",
    feature = "memory",
    feature = "sqlite",
    feature = "zlib",
    feature = "aes"
))]
#[doc = include_str!("../README.md")]
struct Readme;

//! Event persistence: stores and retrieves domain events in memory, SQLite and PostgreSQL.
//!
//! Event sourcing keeps, instead of the present state, the sequence of events that led to it. This
//! library keeps those events: the Rust counterpart of the persistence module of Python's
//! `eventsourcing` library, reading and writing the very same databases.
//!
//! Two promises come before everything else: **no reader ever misses an event or sees one twice, and
//! what was acknowledged is never lost.**
//!
//! # The parts
//! - An [`EventStore`] puts a [`Mapper`] in front of a recorder.
//! - The mapper turns a [`DomainEvent`] into a [`StoredEvent`] and back: transcoder, then compressor,
//!   then cipher.
//! - The recorder keeps stored events, in memory, in SQLite or in PostgreSQL. An
//!   [`AggregateRecorder`] keeps the events of aggregates by version, with optimistic concurrency. An
//!   [`ApplicationRecorder`] gives them a total order besides. A [`ProcessRecorder`] records, in the
//!   same commit, how far the notifications of another application have been processed: each is
//!   processed exactly once.
//! - A factory builds all of it from environment variables.
//!
//! # A first event
#![cfg_attr(all(feature = "derive", feature = "popo"), doc = "```")]
#![cfg_attr(not(all(feature = "derive", feature = "popo")), doc = "```ignore")]
//! use es_persistence::{DomainEvent, Event, EventRange, EventStore, Mapper, uuid::Uuid};
//! use es_persistence::{popo::PopoApplicationRecorder, transcode::JsonTranscoder};
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
//! # async fn main() -> Result<(), es_persistence::PersistenceError> {
//! let store = EventStore::new(PopoApplicationRecorder::new(), Mapper::new(JsonTranscoder::new()));
//!
//! let account = Uuid::now_v7();
//! let opened = DomainEvent::new(account, 1, AccountEvent::Opened { owner: "Alice".to_owned() });
//! let credited = DomainEvent::new(account, 2, AccountEvent::Credited { cents: 1_250 });
//! store.put(&[opened.clone(), credited.clone()]).await?;
//!
//! let events = store.get::<AccountEvent>(account, EventRange::all()).await?;
//! assert_eq!(events, [opened, credited]);
//!
//! // Somebody who does not know of version 2 cannot write another.
//! let closed = DomainEvent::new(account, 2, AccountEvent::Closed);
//! assert!(store.put(&[closed]).await.is_err_and(|error| error.is_conflict()));
//! # Ok(())
//! # }
//! ```
//!
//! # Following the log
//! The guide (module `guide`, with the features `process` and `sqlite`) has a chapter on each: streams
//! and live subscriptions, processors that handle each event exactly once, and projections into tables
//! of your own.
//!
//! # Beside the Python library
//! Processes in Rust and in Python can share a database: append to the same aggregates, follow the same
//! log, go on from each other's snapshots and positions. What to know:
//! - Version 9.1 records tracking positions only in a table that it has made itself; this library uses
//!   that table as it is. Where 9.1 is to process notifications, let it make the tables.
//! - On PostgreSQL, keep the default ordering, and `POSTGRES_ENABLE_DB_FUNCTIONS` of version 9.5 off:
//!   otherwise the Python library's readers, and with the latter all readers, can miss events.
//! - Its subscriptions of version 9.5 there wait for `NOTIFY`, which is sent with `POSTGRES_NOTIFY` on.
//!
//! # Features
//! A feature compiles a part in, and never changes what another part does.
//!
//! | feature | default | what it compiles in |
//! |---|---|---|
//! | `popo` | yes | recorders in memory: [`popo`] |
//! | `sqlite` | yes | recorders on SQLite, which comes along: [`sqlite`] |
//! | `postgres` | | recorders on PostgreSQL: [`postgres`] |
//! | `tls` | | encrypted connections to PostgreSQL |
//! | `json` | yes | the JSON transcoder: [`transcode`] |
//! | `zlib` | yes | the zlib compressor: [`compress`] |
//! | `zstd` | | the zstd compressor: [`compress`] |
//! | `aes` | yes | the AES-GCM cipher: [`crypto`] |
//! | `derive` | yes | [`derive(Event)`](derive@Event) |
//! | `factory` | yes | the infrastructure factory: [`factory`] |
//! | `process` | yes | processors, which process notifications exactly once: [`process`] |
//! | `metrics` | | reports of processors to the `metrics` facade |
//!
//! Each part is a crate of its own (`es-core`, `es-sqlite`, …) for those who prefer them à la carte.

#[cfg(all(feature = "process", feature = "sqlite"))]
pub mod guide;

#[cfg(any(feature = "zlib", feature = "zstd"))]
pub use es_compress as compress;
pub use es_core::*;
#[cfg(feature = "aes")]
pub use es_crypto as crypto;
#[cfg(feature = "derive")]
pub use es_derive::Event;
#[cfg(feature = "factory")]
pub use es_factory as factory;
#[cfg(feature = "popo")]
pub use es_popo as popo;
#[cfg(feature = "postgres")]
pub use es_postgres as postgres;
#[cfg(feature = "process")]
pub use es_process as process;
#[cfg(feature = "sqlite")]
pub use es_sqlite as sqlite;
#[cfg(feature = "json")]
pub use es_transcode as transcode;

/// The examples of the README, compiled and run.
#[cfg(all(
    doctest,
    feature = "derive",
    feature = "factory",
    feature = "process",
    feature = "popo",
    feature = "sqlite",
    feature = "zlib",
    feature = "aes"
))]
#[doc = include_str!("../README.md")]
struct Readme;

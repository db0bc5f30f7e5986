//! Recorders on SQLite: a file or `:memory:`, the same tables as the Python library's.
//!
//! A [`SqliteDatastore`] is one open database. Its recorders share one writing connection, which commits
//! what waits in groups, and a small pool of reader threads:
//!
//! - [`SqliteAggregateRecorder`] keeps events, or snapshots, of aggregates by version,
//! - [`SqliteApplicationRecorder`] also keeps them in one total order,
//! - [`SqliteProcessRecorder`] also keeps tracking records, in the same commit,
//! - [`SqliteTrackingRecorder`] keeps tracking records alone.
//!
//! A [`SqliteProjection`] writes tables of the program's own in the commit that records a position:
//! see [`SqliteTrackingRecorder::projector`].
//!
//! The surface is asynchronous and needs no particular runtime; no call makes the thread that polls it
//! wait for a lock, nor for a disk that takes longer than half a millisecond. An acknowledged event is on the disk ([`Synchronous::Full`]), and any number of
//! processes, in Rust or Python, may share a file.
//!
//! # Example
//! ```
//! use es_core::{AggregateRecorder, ApplicationRecorder, Bytes, EventRange, NotificationSelection};
//! use es_core::{PersistenceError, Recorder, StoredEvent, Topic, uuid::Uuid};
//! use es_sqlite::SqliteOptions;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PersistenceError> {
//! let datastore = SqliteOptions::new(":memory:").open().await?;
//! let recorder = datastore.application_recorder().await?;
//!
//! let opened = StoredEvent {
//!     originator_id: Uuid::from_u128(1),
//!     originator_version: 1,
//!     topic: Topic::from_static("bank:Account.Opened"),
//!     state: Bytes::from_static(br#"{"owner":"Alice"}"#),
//! };
//! assert_eq!(recorder.insert_events(vec![opened.clone()]).await?, [1]);
//! assert_eq!(recorder.select_events(opened.originator_id, EventRange::all()).await?, [opened.clone()]);
//!
//! // The same version again is a conflict that says what collided.
//! let refused = recorder.insert_events(vec![opened.clone()]).await.unwrap_err();
//! assert!(refused.is_conflict());
//!
//! let page = recorder.select_notifications(NotificationSelection::new(100)).await?;
//! assert_eq!((page[0].id, &page[0].event), (1, &opened));
//! recorder.close().await
//! # }
//! ```
//!
//! # Why threads of its own
//! SQLite is a library of blocking calls with one writer at a time. A thread that owns the only
//! writing connection puts every request that waits into one transaction, so that many tasks share
//! one flush of the disk, and a request costs one hop to that thread however many statements it
//! takes. A conflict rolls back the request that met it and no other.
//!
//! That hop takes about as long as a small commit on a fast disk. While commits are short, a caller whose
//! small request waits therefore commits it on its own thread, together with what else waits. It waits for
//! no lock: large requests, projections, copying the log into the database, and everything while another process
//! writes or the disk is slow, are the writer thread's. [`SqliteOptions::inline_commits`] leaves it
//! all commits.
//!
//! Reader threads have connections of their own, so that readers and the writer do not wait for each
//! other. While short reads take less than 100 µs on average, an aggregate's few events are read on the
//! caller's thread, unless another call or connection is in the way: waking a thread would take several
//! times as long. A database in memory has one connection, which callers and the writer thread share.

//!
//! # Originator ids
//! Prefer ids in the order of time (`Uuid::now_v7`). The primary key begins with the id, so that each event
//! of a group goes to another page of its index when ids are random, which makes a group slower in a large
//! database.
//!
//! # Following
//! What the datastore's own recorders commit wakes those who wait for it, before the one who recorded it
//! is told. For what others commit, other processes or other connections of this one, the writer
//! thread asks SQLite once in a [`poll_interval`](SqliteOptions::poll_interval), while somebody waits.

mod connection;
mod datastore;
mod error;
#[cfg(feature = "sqlx")]
mod external_transaction;
mod fault_hooks;
mod follow;
mod limits;
mod options;
mod projection;
mod read;
mod recorder;
mod schema;
mod write;

pub use datastore::SqliteDatastore;
pub use fault_hooks::{Fault, FaultHooks, FaultPoint};
pub use options::{SqliteOptions, Synchronous};
pub use projection::{SqliteProjection, SqliteProjector};
pub use recorder::{
    SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteProcessRecorder, SqliteTrackingRecorder,
};
/// The SQLite library that projections are written against.
pub use rusqlite;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

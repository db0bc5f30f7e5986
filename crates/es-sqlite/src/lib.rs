//! Recorders on SQLite: a file or `:memory:`, with the tables of the Python library.
//!
//! A [`SqliteDatastore`] is one open database. Its recorders share one writing connection, which commits
//! waiting requests in groups, and a small pool of reader threads:
//!
//! - [`SqliteAggregateRecorder`] stores events, or snapshots, of aggregates by version,
//! - [`SqliteApplicationRecorder`] also stores them in one total order,
//! - [`SqliteProcessRecorder`] also stores tracking records, in the same commit,
//! - [`SqliteTrackingRecorder`] stores tracking records alone.
//!
//! A [`SqliteProjection`] writes the program's own tables in the commit that records a position: see
//! [`SqliteTrackingRecorder::projector`].
//!
//! The API is asynchronous and needs no particular runtime. No call waits for a lock on the thread that polls
//! it. Small commits and short reads use the disk on that thread while they are short on average; see
//! [`SqliteOptions::inline_commits`]. An acknowledged event is on the disk ([`Synchronous::Full`]). Any
//! number of processes, in Rust or Python, may share a file.
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
//! // The same version again is a conflict, which names it.
//! let refused = recorder.insert_events(vec![opened.clone()]).await.unwrap_err();
//! assert!(refused.is_conflict());
//!
//! let page = recorder.select_notifications(NotificationSelection::new(100)).await?;
//! assert_eq!((page[0].id, &page[0].event), (1, &opened));
//! recorder.close().await
//! # }
//! ```
//!
//! # Threads
//! SQLite is a library of blocking calls with one writer at a time. There is one writing connection. The
//! writer thread, or a caller while commits are short, puts all waiting requests into one transaction, so
//! that many tasks share one flush of the disk. A request costs at most one hop to that thread, however many
//! statements it takes. A conflict rolls back only its own request.
//!
//! That hop takes about as long as a small commit on a fast disk. While commits are short, a caller therefore
//! commits its small request inline, on its own thread, together with the other waiting ones. It never waits
//! for a lock. The writer thread makes large requests, projections and checkpoints, and all commits while
//! another process writes or the disk is slow. [`SqliteOptions::inline_commits`] switches inline commits off.
//!
//! Reader threads have connections of their own, so that readers and the writer do not block each other.
//! While short reads take less than 100 µs on average, an aggregate's few events are read inline, unless
//! another call or connection is in the way: waking a thread would take several times as long. A database in
//! memory has one connection, which callers and the writer thread share.
//!
//! # Originator ids
//! Prefer time-ordered ids (`Uuid::now_v7`). The primary key begins with the id. With random ids, each event
//! of a group goes to another page of its index, which makes a group slower in a large database.
//!
//! # Following
//! Commits of the datastore's own recorders wake listeners before they are acknowledged. For commits of other
//! processes and other connections, the writer thread polls SQLite once in a
//! [`poll_interval`](SqliteOptions::poll_interval), while there are listeners.

mod connection;
mod datastore;
mod error;
#[cfg(feature = "sqlx")]
mod external_transaction;
mod fault_hooks;
mod follow;
mod lifecycle;
mod limits;
mod maintenance;
mod options;
mod projection;
mod read;
mod recorder;
mod schema;
mod segments;
mod write;

pub use datastore::SqliteDatastore;
#[cfg(feature = "test-hooks")]
pub use fault_hooks::{Fault, FaultHooks, FaultPoint};
pub use options::{SqliteOptions, Synchronous};
pub use projection::{SqliteProjection, SqliteProjector};
pub use recorder::{
    SqliteAggregateRecorder, SqliteApplicationRecorder, SqliteProcessRecorder, SqliteTrackingRecorder,
};
/// The SQLite library that projections are written against.
pub use rusqlite;
/// The library of the caller's own transactions.
#[cfg(feature = "sqlx")]
pub use sqlx;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

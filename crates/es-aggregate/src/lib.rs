//! Aggregates and repositories on an event store.
//!
//! An [`Aggregate`] is a state that is folded from its events. A [`Repository`] loads aggregates and executes
//! commands on them: it loads, lets the aggregate decide, and appends the events of the decision. If another
//! process was faster, it reads that process's events and decides again.
//!
//! ```text
//!                   ┌──────────── after a conflict: a pause, and the new events ─────────────┐
//!                   ▼                                                                        │
//!  execute ▸ lock ▸ load: snapshot ▸ events after it ▸ decide ▸ number the events ▸ append ──┤
//!                                                        │                                   ▼
//!                                              your error: Rejected       unlock ▸ ids, and a snapshot
//! ```
//!
//! # Example
//! ```
//! use es_aggregate::{Aggregate, CommandError, Repository, SnapshotPolicy};
//! use es_core::{AggregateRecorder, EventStore, Mapper, Metadata, SnapshotState, uuid::Uuid};
//! use es_derive::Event;
//! use es_popo::{PopoAggregateRecorder, PopoApplicationRecorder};
//! use es_transcode::JsonTranscoder;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Event)]
//! #[event(topic = "shop:Order")]
//! enum OrderEvent {
//!     Placed { item: String },
//!     Shipped,
//! }
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Order {
//!     items: Vec<String>,
//!     is_shipped: bool,
//! }
//!
//! #[derive(Debug, PartialEq, thiserror::Error)]
//! enum OrderError {
//!     #[error("the order is shipped")]
//!     Shipped,
//! }
//!
//! impl Aggregate for Order {
//!     type Event = OrderEvent;
//!
//!     fn apply(&mut self, event: &OrderEvent) {
//!         match event {
//!             OrderEvent::Placed { item } => self.items.push(item.clone()),
//!             OrderEvent::Shipped => self.is_shipped = true,
//!         }
//!     }
//! }
//!
//! impl Order {
//!     fn place(&self, item: &str) -> Result<Vec<OrderEvent>, OrderError> {
//!         if self.is_shipped {
//!             return Err(OrderError::Shipped);
//!         }
//!         Ok(vec![OrderEvent::Placed { item: item.to_owned() }])
//!     }
//!
//!     fn ship(&self) -> Result<Vec<OrderEvent>, OrderError> {
//!         // Repeated without effect.
//!         Ok(if self.is_shipped { vec![] } else { vec![OrderEvent::Shipped] })
//!     }
//! }
//!
//! // Only for snapshots.
//! impl SnapshotState for Order {
//!     const AGGREGATE_TOPIC: &str = "shop:Order";
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), CommandError<OrderError>> {
//! let store = EventStore::new(PopoApplicationRecorder::new(), Mapper::new(JsonTranscoder::new()));
//! let snapshots = EventStore::new(PopoAggregateRecorder::new(), Mapper::new(JsonTranscoder::new()));
//! let orders = Repository::<Order, _, _>::new(store).snapshots(snapshots, SnapshotPolicy::every(50));
//!
//! let id = Uuid::now_v7();
//! let metadata = Metadata::new().with_actor("alice");
//! let ids = orders.execute(id, metadata.clone(), |order| order.place("book")).await?;
//! assert_eq!(ids, [1]);
//! orders.execute(id, metadata.clone(), |order| order.ship()).await?;
//!
//! let order = orders.load(id).await?;
//! assert_eq!((order.version, order.state.items), (2, vec!["book".to_owned()]));
//!
//! let refused = orders.execute(id, metadata, |order| order.place("pen")).await.unwrap_err();
//! assert_eq!(refused.rejection(), Some(&OrderError::Shipped));
//! # Ok(())
//! # }
//! ```
//!
//! # Contention
//! Commands on one aggregate take turns in a process, by a lock in memory that exists while it is used.
//! Conflicts remain between processes; a command that meets one pauses with full jitter and is repeated until
//! [`retry_for`](Repository::retry_for).
//!
//! `benches/contention.rs` starts 60 commands at the same time on one new aggregate, on SQLite, five times:
//!
//! | | succeeded of 60 | time |
//! |---|---|---|
//! | one repository | 60 | 114 to 181 ms |
//! | two repositories, as in two processes | 60 | 125 to 212 ms |
//! | a naive loop of ten attempts | 18 to 27 | 54 to 73 ms |
//!
//! # Idempotent commands
//! If a connection is lost during a commit, the outcome may remain unknown, and a command whose response is
//! lost is sent again by its client. Executing it again would append its events twice. So record the id of a
//! command in its event, and decide on nothing for a command that is already executed:
//!
//! ```
//! # use std::collections::HashSet;
//! # use es_core::uuid::Uuid;
//! # struct Paid { payment_id: Uuid, cents: i64 }
//! # struct Order { payments: HashSet<Uuid> }
//! # struct OrderError;
//! impl Order {
//!     fn pay(&self, payment_id: Uuid, cents: i64) -> Result<Vec<Paid>, OrderError> {
//!         if self.payments.contains(&payment_id) {
//!             return Ok(vec![]);
//!         }
//!         Ok(vec![Paid { payment_id, cents }])
//!     }
//! }
//! ```
//! Such a command can be repeated after any [transient](es_core::PersistenceError::is_transient) error, and
//! after one whose [outcome is unknown](es_core::PersistenceError::is_outcome_unknown). A repository repeats
//! commands only after conflicts, when nothing was recorded.
//!
//! # No cache
//! Aggregates are loaded for each command. In the same benchmark a command takes 0.7 ms or more, of which the
//! load with snapshots is less than 0.1 ms, for 5,000 events too. A cache would save a part of that, since
//! the events of other processes must be read in any case. (Two cores, without optimization.)

mod aggregate;
mod backoff;
mod error;
mod locks;
mod repository;
mod snapshots;
pub mod testing;
mod together;

pub use aggregate::{Aggregate, Loaded};
pub use error::CommandError;
pub use repository::Repository;
pub use snapshots::SnapshotPolicy;
pub use together::{AggregateRef, Aggregates, execute_together};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

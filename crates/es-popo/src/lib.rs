//! Recorders on plain old objects in memory.
//!
//! They have the same guarantees as the recorders on databases, except that events are lost when the last
//! recorder and the datastore are dropped. They are for tests and experiments, and are the reference
//! implementation that other recorders are compared with.
//!
//! - Readers do not block each other; a writer holds the lock only for its own batch.
//! - Events are read without copying topic and state.
//! - Notification ids are 1, 2, 3, …, without gaps.
//! - A [`PopoProjection`] updates a view in memory exactly once for each notification.
//! - A recorder has a datastore of its own, or shares the events with other recorders of a [`PopoDatastore`].
//!
//! # Example
//! ```
//! use es_core::{AggregateRecorder, Bytes, EventRange, StoredEvent, Topic, uuid::Uuid};
//! use es_popo::PopoApplicationRecorder;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), es_core::PersistenceError> {
//! let recorder = PopoApplicationRecorder::new();
//! let opened = StoredEvent {
//!     originator_id: Uuid::from_u128(1),
//!     originator_version: 1,
//!     topic: Topic::from_static("bank:Account.Opened"),
//!     state: Bytes::from_static(b"{}"),
//! };
//!
//! let ids = recorder.insert_events(vec![opened.clone()]).await?;
//! assert_eq!(ids, [1]);
//!
//! let events = recorder.select_events(opened.originator_id, EventRange::all()).await?;
//! assert_eq!(events, [opened.clone()]);
//!
//! let conflict = recorder.insert_events(vec![opened]).await.unwrap_err();
//! assert!(conflict.is_conflict());
//! # Ok(())
//! # }
//! ```

mod datastore;
mod log;
mod projector;
mod recorder;
mod segments;
mod table;
mod versions;

pub use datastore::PopoDatastore;
pub use projector::{PopoProjection, PopoProjector, PopoView};
pub use recorder::{
    PopoAggregateRecorder, PopoApplicationRecorder, PopoProcessRecorder, PopoTrackingRecorder,
};

//! Events, ids, errors and the traits of all parts of an event store.
//!
//! Backends, codecs and ciphers depend on this crate, which depends on no database, no codec and no
//! asynchronous runtime.
//!
//! - An [`EventStore`] puts a [`Mapper`] in front of a recorder.
//! - A [`Mapper`] converts a [`DomainEvent`] to a [`StoredEvent`] and back: [`Transcoder`], then
//!   [`Compressor`], then [`Cipher`].
//! - A recorder stores events. There are three tiers, each with all of the one before:
//!   [`AggregateRecorder`] (events of one aggregate by version), [`ApplicationRecorder`] (plus a
//!   total order of [`Notification`]s) and [`ProcessRecorder`] (plus [`Tracking`] records in the
//!   same commit).
//! - A [`Subscription`] reads the notifications of a recorder after any position, first recorded and then
//!   live ones.
//! - A [`NotificationConsumer`] commits the effects of notifications together with the position.
//! - An [`Event`] defines the [`Topic`] of its payload and the encoding of its state.
//!
//! Every recorder trait has an object-safe version (`Arc<dyn DynProcessRecorder>`) that implements the trait
//! itself, so that code can be generic without allocating, or choose a recorder at run time.
//!
//! # Example
//! An event type written by hand; `#[derive(Event)]` of `es-derive` writes the same:
//! ```
//! use es_core::{Event, NotificationSelection, PersistenceError, StateReader, Topic, Transcoder};
//! use es_core::serde::ser::SerializeMap;
//!
//! #[derive(Debug, PartialEq, es_core::serde::Deserialize)]
//! #[serde(crate = "es_core::serde")]
//! struct Opened {
//!     owner: String,
//! }
//!
//! impl Event for Opened {
//!     const TOPICS: &[Topic] = &[Topic::from_static("bank:Account.Opened")];
//!
//!     fn topic(&self) -> Topic {
//!         Topic::from_static("bank:Account.Opened")
//!     }
//!
//!     fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
//!         state.serialize_entry("owner", &self.owner)
//!     }
//!
//!     fn decode<T: Transcoder>(
//!         topic: &str,
//!         state: &mut StateReader<'_, T>,
//!     ) -> Result<Self, PersistenceError> {
//!         match topic {
//!             "bank:Account.Opened" => state.decode(),
//!             _ => Err(state.unknown_topic()),
//!         }
//!     }
//! }
//!
//! let openings = NotificationSelection::new(100).topics(Opened::TOPICS);
//! # let _ = openings;
//! ```

mod attributes;
mod codec;
mod consumer;
mod context;
mod domain;
mod dynamic;
mod error;
mod event_subscription;
mod maintenance;
mod mapper;
mod metadata;
mod page_size;
mod recorder;
mod segments;
mod selection;
mod signal;
mod snapshot;
mod state;
mod store;
mod stored;
mod streams;
mod subscription;
mod tables;
mod topic;
mod topic_from_text;
mod tracking_ext;

pub use attributes::encode_attributes;
pub use bytes::Bytes;
pub use codec::{Cipher, Compressor, Transcoder, Transcoding};
pub use consumer::{ConsumerError, HandlerError, LoadingConsumer, NotificationBatch, NotificationConsumer};
pub use context::{ErrorContext, EventContext};
pub use domain::{DomainEvent, Event, next_version};
pub use dynamic::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynRecorder,
    DynSegmentRecorder, DynStateMaintenance, DynTrackingRecorder,
};
pub use error::{Conflict, ErrorKind, PersistenceError};
pub use event_subscription::{EventNotification, EventSubscription};
pub use maintenance::{EventKey, StateMaintenance, StateReplacement};
pub use mapper::Mapper;
pub use metadata::Metadata;
pub use page_size::{DEFAULT_PAGE_BYTES, DEFAULT_PAGE_SIZE};
pub use recorder::{AggregateRecorder, ApplicationRecorder, ProcessRecorder, Recorder, TrackingRecorder};
pub use segments::{
    Segment, SegmentChange, SegmentRecorder, SegmentRecorderExt, SegmentStep, SegmentWorker, Segments,
};
pub use selection::{EventRange, NotificationSelection};
/// The serde of this crate's traits, for generated and hand-written code.
pub use serde;
pub use signal::{Listener, Signal};
pub use snapshot::{Snapshot, SnapshotState};
pub use state::StateReader;
pub use store::{EventBatch, EventStore, Expected};
pub use stored::{Notification, StoredEvent, Tracking};
pub use streams::{AggregateRecorderExt, ApplicationRecorderExt};
pub use subscription::{NotificationPage, StopHandle, Subscription};
pub use tables::RecorderTables;
/// The date and time library whose [`time::OffsetDateTime`] stamps events.
pub use time;
pub use topic::Topic;
pub use tracking_ext::{ConsumerLag, TrackingRecorderExt};
/// The UUID library whose [`uuid::Uuid`] identifies originators.
pub use uuid;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

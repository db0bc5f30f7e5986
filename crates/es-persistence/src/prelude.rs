//! The traits and types that nearly every program uses, to be imported together.
//!
//! ```
//! use es_persistence::prelude::*;
//! ```
//!
//! It has no name of the standard library's prelude, and none that [`axum`] uses for extractors and
//! responses. Recorders, codecs and types of single features are in their modules.
//!
//! [`axum`]: https://docs.rs/axum

#[cfg(feature = "aggregate")]
#[doc(no_inline)]
pub use crate::aggregate::{Aggregate, CommandError, Repository, SnapshotPolicy};
#[cfg(feature = "factory")]
#[doc(no_inline)]
pub use crate::factory::{
    Environment, InfrastructureFactory, ProjectionContext, Sql, SqlProjection, VersionedProjection,
};
#[cfg(feature = "process")]
#[doc(no_inline)]
pub use crate::process::{NewEvents, Processor};
#[cfg(feature = "json")]
#[doc(no_inline)]
pub use crate::transcode::JsonTranscoder;
#[doc(no_inline)]
pub use crate::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, ApplicationRecorderExt, DomainEvent, Event,
    EventNotification, EventRange, EventStore, Expected, HandlerError, Mapper, Metadata, Notification,
    NotificationSelection, PersistenceError, ProcessRecorder, Recorder, SnapshotState, StoredEvent, Topic,
    Tracking, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};

//! Processes the notifications of an event log exactly once, across restarts and several processes.
//!
//! A [`Processor`] follows an upstream recorder and passes its notifications to a
//! [`NotificationConsumer`](es_core::NotificationConsumer), which commits their effects together with the
//! position. There are three kinds of consumer:
//! - An asynchronous [`EventHandler`] gets domain events and returns new ones, which a store records:
//!   [`Processor::for_events`].
//! - A [`Handler`] does the same with stored events: [`Processor::new`].
//! - A projector of `es-popo`, `es-sqlite` or `es-postgres` writes into tables of your own, in the
//!   transaction that records the position: [`Processor::with_consumer`].
//!
//! ```text
//!                        ┌─────────────────────── one commit ───────────────────────┐
//!  upstream log   5 6 7 ─▶ handler(6) ▸ events ─▶ downstream log                    │
//!                        │                        tracking: "audit" has processed 6 │
//!                        └───────────────────────────────────────────────────────────┘
//!  After a crash either both are recorded or none. A restart continues after the recorded position.
//! ```
//!
//! A handler may be *called* more than once for a notification: after a crash, or in two processes at
//! the same time. Its *effects*, the events that it returns or the rows that it writes in the
//! transaction, are recorded once, because the position that is committed with them cannot be recorded
//! twice. Other effects (an e-mail) are not in that commit: record an event, and let a processor of that
//! event send the e-mail with an idempotency key.
//!
//! # Example
//! ```
//! use es_core::{DomainEvent, EventNotification, EventStore, Expected, Mapper, PersistenceError};
//! use es_core::{TrackingRecorderExt, uuid::Uuid};
//! use es_derive::Event;
//! use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
//! use es_process::{NewEvents, Processor};
//! use es_transcode::JsonTranscoder;
//! use std::time::Duration;
//!
//! #[derive(Event)]
//! #[event(topic = "bank:Account")]
//! enum AccountEvent {
//!     Opened,
//!     Credited { cents: i64 },
//! }
//!
//! #[derive(Event)]
//! #[event(topic = "audit:Noticed")]
//! struct Noticed {
//!     cents: i64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mapper = Mapper::new(JsonTranscoder::new());
//! let bank = EventStore::new(PopoApplicationRecorder::new(), mapper.clone());
//! let audit = EventStore::new(PopoProcessRecorder::new(), mapper);
//!
//! // For each credit, an event of the audit.
//! let handler = async |notification: EventNotification<AccountEvent>| {
//!     let event = notification.event;
//!     let mut new = NewEvents::new();
//!     if let AccountEvent::Credited { cents } = event.payload {
//!         let id = Uuid::new_v5(&event.originator_id, b"audit");
//!         new.push(DomainEvent::new(id, event.originator_version, Noticed { cents }));
//!     }
//!     Ok::<_, PersistenceError>(new)
//! };
//! let mut running = Processor::for_events("audit", &bank, &audit, handler).spawn()?;
//!
//! let events = [AccountEvent::Opened, AccountEvent::Credited { cents: 500 }];
//! let ids = bank.append(Uuid::now_v7(), Expected::New, events).await?;
//! audit.recorder().wait("audit", ids[1], Duration::from_secs(5)).await?; // read your writes
//! assert_eq!(running.progress().processed(), 2);
//!
//! running.stop(); // after the batch in progress
//! running.join().await?;
//! # Ok(())
//! # }
//! ```

mod error;
mod events;
mod handler;
mod metrics;
mod names;
mod pages;
mod partitioned;
mod processor;
mod progress;
mod retry_policy;
mod running;
mod span;
#[cfg(feature = "opentelemetry")]
mod trace_context;

pub use error::ProcessorError;
pub use events::{DecodingHandler, EventHandler, NewEvents};
pub use handler::{Handler, HandlerConsumer};
pub use partitioned::{DEFAULT_LEASE, DEFAULT_SEGMENTS, PartitionedProcessor, SegmentConsumer, key_hash};
pub use processor::{DEFAULT_BATCH_SIZE, Processor};
pub use progress::{ProcessorState, Progress};
pub use retry_policy::RetryPolicy;
pub use running::Running;
#[cfg(feature = "opentelemetry")]
pub use trace_context::MetadataTraceExt;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Processes the notifications of an event log exactly once, across restarts and several processes.
//!
//! A [`Processor`] follows an upstream recorder and passes its notifications to a
//! [`NotificationConsumer`](es_core::NotificationConsumer), which commits their effects together with the
//! position. There are two kinds of consumer:
//! - An asynchronous [`Handler`] returns new events, which a process recorder records: [`Processor::new`].
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
//! use es_core::{AggregateRecorder, ApplicationRecorder, Notification, PersistenceError, StoredEvent};
//! use es_core::{Topic, TrackingRecorderExt, uuid::Uuid};
//! use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
//! use es_process::Processor;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (bank, audit) = (PopoApplicationRecorder::new(), PopoProcessRecorder::new());
//!
//! // For each event of the bank, one of the audit.
//! let handler = async |notification: Notification| -> Result<Vec<StoredEvent>, PersistenceError> {
//!     let noticed = StoredEvent {
//!         originator_id: Uuid::new_v5(&notification.event.originator_id, b"audit"),
//!         originator_version: notification.event.originator_version,
//!         topic: Topic::from_static("audit:Noticed"),
//!         state: notification.event.state.clone(),
//!     };
//!     Ok(vec![noticed])
//! };
//! let mut processor = Processor::new("audit", bank.clone(), audit.clone(), handler);
//! let progress = processor.progress();
//! let processing = tokio::spawn(async move { processor.run().await });
//!
//! # let event = StoredEvent {
//! #     originator_id: Uuid::new_v4(),
//! #     originator_version: 1,
//! #     topic: Topic::from_static("bank:Account.Opened"),
//! #     state: "{}".into(),
//! # };
//! let ids = bank.insert_events(vec![event]).await?;
//! audit.wait("audit", ids[0], Duration::from_secs(5)).await?; // read your writes
//! assert_eq!(audit.max_notification_id().await?, Some(1));
//! assert_eq!(progress.processed(), 1);
//! # es_core::Recorder::close(&bank).await?;
//! # processing.await??;
//! # Ok(())
//! # }
//! ```

mod error;
mod handler;
mod metrics;
mod names;
mod processor;
mod progress;
mod retry_policy;

pub use error::ProcessorError;
pub use handler::{Handler, HandlerConsumer};
pub use processor::{DEFAULT_BATCH_SIZE, Processor};
pub use progress::{ProcessorState, Progress};
pub use retry_policy::RetryPolicy;

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

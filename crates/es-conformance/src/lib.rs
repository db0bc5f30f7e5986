//! The rules of recorders, as tests for any recorder: one dev-dependency, one macro.
//!
//! The promises of a [recorder](es_core::AggregateRecorder) are written down here as rules, each an
//! async function that panics when a recorder breaks it:
//!
//! - for all recorders of events, [`aggregate`], [`event_streams`] and [`concurrency`];
//! - for those with a total order, [`application`], [`notification_streams`], [`subscriptions`] and
//!   [`commit_signal`];
//! - for those that track, [`tracking`] and [`waiting`]; for those that do both, [`process`].
//!
//! In addition to the rules, [`model`] compares random operations with a simple model, and [`machine`]
//! compares those on a whole datastore with another datastore.
//!
//! A backend gives a [`Fixture`], an empty datastore and recorders on it, and gets one test for each
//! rule, on its recorder and on the object-safe version (`Arc<dyn DynProcessRecorder>`):
//!
//! - [`aggregate_recorder_tests!`]
//! - [`application_recorder_tests!`], those of aggregate recorders included
//! - [`tracking_recorder_tests!`]
//! - [`process_recorder_tests!`], all of them
//!
//! A test opens a fixture of its own in a runtime of its own, and so tests run in parallel; the
//! fixture is cleaned up whether the test passes or fails.
//!
//! The rules themselves are tested: for each there is a recorder with a defect that breaks that rule
//! and no other.
//!
//! # Example
//! In `tests/conformance.rs` of a backend, here the one in memory:
//! ```
//! use es_conformance::Fixture;
//! use es_popo::{PopoDatastore, PopoProcessRecorder};
//!
//! /// An empty datastore, and recorders on it.
//! struct InMemory(PopoDatastore);
//!
//! impl Fixture for InMemory {
//!     type Recorder = PopoProcessRecorder;
//!
//!     async fn open(&self) -> PopoProcessRecorder {
//!         self.0.process_recorder().expect("it is open")
//!     }
//! }
//!
//! mod process_recorder {
//!     use super::{InMemory, PopoDatastore};
//!
//!     es_conformance::process_recorder_tests!(async || InMemory(PopoDatastore::new()));
//! }
//! # fn main() {}
//! ```
//! A fixture of a database on disk holds the directory, for example as a `tempfile::TempDir` that
//! removes it when it is dropped, and opens a recorder on it at each call of `open()`.
#![expect(clippy::expect_used, clippy::panic, reason = "these are tests: a rule that is broken panics")]

pub mod aggregate;
pub mod application;
pub mod commit_signal;
pub mod concurrency;
pub mod event_streams;
mod fixture;
pub mod machine;
pub mod model;
pub mod notification_streams;
pub mod process;
mod rules;
mod runner;
pub mod subscriptions;
mod support;
pub mod tracking;
pub mod waiting;

/// The traits of recorders.
pub use es_core;
pub use fixture::{BoxedAggregate, BoxedApplication, BoxedProcess, BoxedTracking, Fixture};
pub use rules::{Check, Rule, process_rules};
pub use runner::run;

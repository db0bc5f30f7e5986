//! The rules that every recorder keeps, as tests for any recorder.
#![expect(clippy::expect_used, clippy::panic, reason = "these are tests: a rule that is broken panics")]

pub mod aggregate;
pub mod application;
pub mod concurrency;
mod fixture;
pub mod process;
mod rules;
mod support;
pub mod tracking;

pub use es_core;
pub use fixture::{BoxedAggregate, BoxedApplication, BoxedProcess, BoxedTracking, Fixture};
pub use rules::{Check, Rule, process_rules, run};

//! Tests of the versions of projections on the database that the environment selects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod lifecycle;
#[cfg(feature = "postgres")]
mod postgres;
mod registration;
mod sales;
#[path = "../support/mod.rs"]
mod support;

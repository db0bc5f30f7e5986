//! The guide: following the log, processing each event exactly once, and executing commands.
//!
//! - [`following`]: streams and live subscriptions.
//! - [`processing`]: new events that follow from events.
//! - [`projecting`]: tables of your own, always consistent with their position.
#![cfg_attr(
    all(feature = "aggregate", feature = "derive", feature = "memory"),
    doc = "- [`commands`]: aggregates, and the commands that change them."
)]

#[doc = include_str!("guide/following.md")]
pub mod following {}

#[doc = include_str!("guide/processing.md")]
pub mod processing {}

#[doc = include_str!("guide/projecting.md")]
pub mod projecting {}

#[cfg(all(feature = "aggregate", feature = "derive", feature = "memory"))]
#[doc = include_str!("guide/commands.md")]
pub mod commands {}

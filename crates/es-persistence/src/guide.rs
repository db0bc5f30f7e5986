//! The guide: following the log, and processing each event exactly once.
//!
//! - [`following`]: streams and live subscriptions.
//! - [`processing`]: new events that follow from events.
//! - [`projecting`]: tables of your own, always consistent with their position.

#[doc = include_str!("guide/following.md")]
pub mod following {}

#[doc = include_str!("guide/processing.md")]
pub mod processing {}

#[doc = include_str!("guide/projecting.md")]
pub mod projecting {}

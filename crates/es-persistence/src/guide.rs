//! The guide: how to follow the log, and how to process each event exactly once.
//!
//! - [`following`]: streams and live subscriptions.
//! - [`processing`]: events that follow from events, exactly once.
//! - [`projecting`]: tables of your own that are never behind their position, nor ahead of it.

#[doc = include_str!("guide/following.md")]
pub mod following {}

#[doc = include_str!("guide/processing.md")]
pub mod processing {}

#[doc = include_str!("guide/projecting.md")]
pub mod projecting {}

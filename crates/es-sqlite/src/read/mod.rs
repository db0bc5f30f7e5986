//! Reads, on reader threads or on the caller's thread.

mod inline;
pub(crate) mod pool;
mod select;

pub(crate) use inline::{InlineReader, ReadStats};

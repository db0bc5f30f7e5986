//! Reads, on reader threads or on the caller's thread.

pub(crate) mod inline;
pub(crate) mod select;

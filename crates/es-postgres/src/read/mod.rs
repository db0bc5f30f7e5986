//! Reads: the statements that select, and the fence that keeps readers from missing events.

pub(crate) mod gap_fence;
pub(crate) mod select;

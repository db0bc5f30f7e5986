//! Reads: the statements that select, the fence that keeps readers from missing events, and standbys.

pub(crate) mod gap_fence;
pub(crate) mod known_head;
pub(crate) mod select;
pub(crate) mod standby;

//! The write path: requests wait in a queue, a committer commits groups of them, and each request gets its own
//! result.

pub(crate) mod append;
pub(crate) mod checkpoint;
pub(crate) mod committer;
pub(crate) mod inline;
pub(crate) mod queue;
pub(crate) mod transaction;
pub(crate) mod worker;

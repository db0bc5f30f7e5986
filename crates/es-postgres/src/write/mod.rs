//! The write path: requests wait in a queue, a writer forms groups of them, a group is one statement and one
//! commit, and each request gets its own result.

mod append;
mod appender_cache;
mod committer;
mod group;
pub(crate) mod position;
mod queue;
mod recovery;
mod request;
mod statement;

pub(crate) use append::{LAYOUT_CHANGED, Outcome, Scope};
pub(crate) use appender_cache::AppenderCache;
pub(crate) use committer::Committer;
pub(crate) use queue::Queue;
pub(crate) use request::{Batch, Request, check_events};

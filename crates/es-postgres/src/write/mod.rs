//! The write path: requests wait in a queue, a writer forms groups of them, a group is one statement and one
//! commit, and each request gets its own result.

mod append;
mod appender_cache;
mod columns;
mod committer;
mod group;
mod outcome;
mod position;
mod queue;
mod recovery;
mod request;
mod statement;

pub(crate) use append::Scope;
pub(crate) use appender_cache::AppenderCache;
pub(crate) use committer::Committer;
pub(crate) use outcome::Outcome;
pub(crate) use position::{not_recorded, record_position};
pub(crate) use queue::Queue;
pub(crate) use request::{Batch, check_events};

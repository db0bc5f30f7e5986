//! The write path: requests wait in a queue, a committer commits groups of them, and each request gets its
//! own result.

pub(crate) mod append;
mod checkpoint;
mod committer;
mod connection;
mod group;
mod inline;
mod queue;
mod request;
mod worker;

pub(crate) use committer::{Command, Committer, SharedCommitter};
pub(crate) use connection::WriteConnection;
pub(crate) use inline::InlineCommits;
pub(crate) use queue::{OwnedQueue, Queue, WakeOnDrop};
pub(crate) use request::{Batch, Outcome, Request, queued_size};
pub(crate) use worker::Worker;

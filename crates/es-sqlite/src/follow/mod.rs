//! Signals of commits, and the poll for commits of other connections.

mod poller;
mod signals;

pub(crate) use poller::{CommitPoller, data_version};
pub(crate) use signals::Signals;

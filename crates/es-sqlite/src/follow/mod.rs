//! Signals of commits, and the poll for commits of other connections.

pub(crate) mod poller;
pub(crate) mod signals;

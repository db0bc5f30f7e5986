//! Connections: opening, what a connection keeps between queries, locks of other connections, threads.

pub(crate) mod busy;
pub(crate) mod file_identity;
pub(crate) mod open;
pub(crate) mod threads;

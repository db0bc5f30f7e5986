//! Connections: opening, sessions, locks of other connections, file identity, threads.

mod busy;
pub(crate) mod file_identity;
mod open;
mod session;
mod threads;

pub(crate) use busy::retry_while_busy;
pub(crate) use open::Connections;
pub(crate) use session::{Job, Session, job};
pub(crate) use threads::Threads;

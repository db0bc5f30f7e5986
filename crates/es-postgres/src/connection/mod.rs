//! Connections to the server: opened, pooled, leased, checked while they do not answer.

mod backoff;
mod connector;
mod database;
mod idle_reaper;
mod liveness;
mod pool;
mod query;
pub(crate) mod session;
mod standbys;

pub(crate) use backoff::Backoff;
pub(crate) use database::Database;
pub(crate) use pool::{Lease, LeaseKind};
pub(crate) use query::{Query, Select, column};
pub(crate) use standbys::{StandbyError, Standbys};

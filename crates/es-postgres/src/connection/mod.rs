//! Connections to the server: how they are made, kept, leased and given back.

pub(crate) mod backoff;
mod idle_reaper;
pub(crate) mod pool;
pub(crate) mod session;

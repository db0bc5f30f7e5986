//! The experiments: which workload on which systems, and what is to be reached.

pub(crate) mod mapper;
pub(crate) mod popo;
pub(crate) mod postgres;
pub(crate) mod sqlite;

mod fixture;
mod memory;

//! The experiments: which workload on which systems, and what is to be reached.
//!
//! A suite is one function here, called by `main`: it says what competes in `Bench::compete`, experiment by experiment.

pub(crate) mod following;
pub(crate) mod growth;
pub(crate) mod mapper;
pub(crate) mod popo;
pub(crate) mod postgres;
pub(crate) mod sqlite;

mod fixture;
mod memory;
mod sizes;

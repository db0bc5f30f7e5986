//! The experiments: workloads, systems and targets.
//!
//! A suite is one function here, called by `main`. It declares the systems of each experiment in
//! `Bench::measure`.

pub(crate) mod backend;
pub(crate) mod following;
pub(crate) mod growth;
pub(crate) mod keys;
pub(crate) mod mapper;
pub(crate) mod popo;
pub(crate) mod postgres;
pub(crate) mod sqlite;

mod fixture;
mod sizes;

//! A mixed load on each datastore for as long as one likes: every reader checks that it sees each event
//! once, and what a program holds must not grow.
//!
//! - [`run`] starts a [`workload`] on each datastore and takes samples beside them.
//! - A workload fills one database after the other: [`writers`] write what a [`ledger`] notes, [`readers`]
//!   and a [`projection`] check all that they see with [`sequence_checker`].
//! - [`meters`] are what workloads tell of themselves; [`gauges`] are sampled, and judged at the end.
//!
//! [`mixed`] is another run: everything that may use one events table, and faults.
//!
//! Nothing else here remembers single events, so that what grows is not the load's own.

pub mod gauges;
pub mod ledger;
pub mod meters;
pub mod mixed;
pub mod projection;
pub mod readers;
mod run;
pub mod sequence_checker;
pub mod workload;
pub mod writers;

pub use run::{Report, run};

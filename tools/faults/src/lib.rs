//! Processes that write, read and process databases, and are killed while they do; and the check that
//! everything which recorders and processors promise holds afterwards.
//!
//! - [`campaign`] starts the processes, kills them, and looks at what is left, round after round.
//! - [`cluster`] lets nodes of a PostgreSQL cluster fail instead of the processes.
//! - [`child`] is what such a process does: [`clients`] of a recorder, or a processor with [`effects`].
//! - [`workers`] is a campaign on the workers of a partitioned consumer.
//! - [`kill_point`] kills it from within, at a point that a recorder or a handler passes.
//! - [`switches`] is a campaign of its own: on the versions of a projection.
//! - [`history`] is what the clients did and when, and [`check`] says whether it keeps the promises.
//!
//! A campaign follows from its seed: which databases, how many processes with how many tasks, where the
//! fuses are and when somebody is killed. How the system schedules the processes does not, so that a
//! failure may take a few repetitions to show again.

pub mod campaign;
pub mod check;
pub mod child;
pub mod clients;
pub mod cluster;
pub mod effects;
pub mod history;
pub mod kill_point;
pub mod process;
pub mod progress;
pub mod report;
pub mod switches;
pub mod test_database;
pub mod workers;

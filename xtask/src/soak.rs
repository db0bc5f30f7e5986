//! `cargo xtask soak`: a mixed load on each datastore for so many minutes, with a PostgreSQL server.

use anyhow::Result;
use clap::Args;

use crate::postgres::Server;
use crate::test::WITHOUT_POSTGRES;
use crate::{process, workspace};

/// Put a mixed load on each datastore for some minutes, and say what grew under it
///
/// Fails when a reader missed an event or saw one twice, and when memory, handles, connections or prepared statements
/// grow beyond their bounds. The PostgreSQL server is found as for `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For how long; fractions are fine
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Leave out what needs a PostgreSQL server
    #[arg(long)]
    without_postgres: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let minutes = arguments.minutes.to_string();
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--package", "es-soak", "--", "--minutes", &minutes]);
    // Lives until the process has ended.
    let server = if arguments.without_postgres { None } else { Some(Server::provide(None)?) };
    match &server {
        Some(server) => command.env_remove(WITHOUT_POSTGRES).envs(server.variables()),
        None => command.env(WITHOUT_POSTGRES, "1"),
    };
    process::check(&mut command)
}

//! `cargo xtask interop`: processes in Rust and in Python on one database, at the same time.

use anyhow::Result;
use clap::Args;

use crate::{postgres::Server, process, python, workspace};

/// Let processes in Rust and in Python work on one database at the same time
///
/// The Python library is installed into virtual environments in `target/python`. On SQLite and on PostgreSQL
/// (a server as for `cargo xtask test`), plain and compressed and encrypted, with the tables that either side
/// makes: both sides append to the same accounts, follow the log, process each other's notifications and take
/// snapshots. Everything that either has seen is compared, and so are the transcoders of both, on random
/// values.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Skip everything that needs a PostgreSQL server
    #[arg(long)]
    pub(crate) without_postgres: bool,
    /// Run only the configurations whose printed names contain this
    #[arg(long, value_name = "NAME")]
    pub(crate) filter: Option<String>,
    /// The seed of the random values
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    python::make_environments()?;
    let mut command = workspace::cargo();
    command.args(["run", "--package", "es-interop", "--", "--environments"]).arg(python::directory());
    if let Some(filter) = &arguments.filter {
        command.args(["--filter", filter]);
    }
    if let Some(seed) = arguments.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    // Lives until the scenarios have ended.
    let server = if arguments.without_postgres { None } else { Some(Server::provide(None)?) };
    match &server {
        Some(server) => command.envs(server.variables()),
        None => command.arg("--without-postgres"),
    };
    process::check(&mut command)
}

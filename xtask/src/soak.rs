//! `cargo xtask soak`: a mixed load for so many minutes, with a PostgreSQL server.

use std::fmt;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    pgbouncer,
    postgres::{Server, Version},
    process, python,
    test::WITHOUT_POSTGRES,
    workspace,
};

/// Put a mixed load on each datastore for some minutes, and say what grew under it
///
/// Fails when a reader missed an event or received one twice, and when memory, handles, connections or
/// prepared statements grow beyond their bounds. The PostgreSQL server is found as for `cargo xtask test`.
///
/// With --mixed, everything that may use one events table of PostgreSQL uses it at the same time: this
/// library, the Python library, SQL of earlier builds, maintenance, readers, processors. Processes are killed
/// and sessions are cut. Fails when an event or an effect is missing, unwanted, repeated or out of order, and
/// names it.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// The duration; may be a fraction
    #[arg(long, default_value_t = 2.0)]
    pub(crate) minutes: f64,
    /// Skip everything that needs a PostgreSQL server
    #[arg(long, conflicts_with = "mixed")]
    pub(crate) without_postgres: bool,
    /// Run every kind of participant on one events table, with faults
    #[arg(long)]
    pub(crate) mixed: bool,
    /// The ordering of the mixed soak
    #[arg(long, requires = "mixed", default_value_t)]
    pub(crate) ordering: Ordering,
    /// Connect through pgbouncer in transaction mode
    #[arg(long, requires = "mixed")]
    pub(crate) pooler: bool,
    /// Skip the Python library; otherwise it is installed into `target/python`
    #[arg(long, requires = "mixed")]
    pub(crate) without_python: bool,
    /// Use a server of this major version of PostgreSQL, installed with npm if it is missing
    #[arg(long, value_name = "VERSION", conflicts_with = "without_postgres")]
    pub(crate) postgres: Option<Version>,
    /// Build without optimization
    #[arg(long)]
    pub(crate) debug: bool,
}

/// The ordering of notification ids.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Ordering {
    #[default]
    Serialized,
    Parallel,
}

impl fmt::Display for Ordering {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Serialized => "serialized",
            Self::Parallel => "parallel",
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let minutes = arguments.minutes.to_string();
    let mut command = workspace::cargo();
    command.arg("run");
    if !arguments.debug {
        command.arg("--release");
    }
    command.args(["--package", "es-soak", "--", "--minutes", &minutes]);
    if arguments.mixed {
        command.args(["--mixed", "--ordering", &arguments.ordering.to_string()]);
        if !arguments.without_python {
            python::make_environments()?;
            command.arg("--python").arg(python::program("9.5"));
        }
        if arguments.pooler {
            let (_, program) = pgbouncer::variable().context("pgbouncer 1.21 or newer is needed")?;
            command.arg("--pgbouncer").arg(program);
        }
    }
    // Lives until the process has ended.
    let server = if arguments.without_postgres { None } else { Some(Server::provide(arguments.postgres)?) };
    match &server {
        Some(server) => command.env_remove(WITHOUT_POSTGRES).envs(server.variables()),
        None => command.env(WITHOUT_POSTGRES, "1"),
    };
    process::check(&mut command)
}

//! `cargo xtask bench`: the benchmarks, with a PostgreSQL server of default durability.

use anyhow::Result;
use clap::Args;

use crate::postgres::Server;
use crate::{process, workspace};

const WITHOUT_POSTGRES: &str = "--without-postgres";

/// Run the benchmarks, with a PostgreSQL server as for `cargo xtask test`
///
/// All arguments are es-bench's own: --quick for a short run, --without-postgres and --without-python to leave these
/// out, --peers and --growth for more, --write-results for BENCHMARKS.md, and what `cargo xtask bench -- --help` says.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Arguments for es-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Arguments {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self { arguments: arguments.iter().map(ToString::to_string).collect() }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["run", "--release", "--package", "es-bench", "--"]).args(&arguments.arguments);
    let needs_none = |argument: &String| argument == WITHOUT_POSTGRES || argument == "--help";
    // Lives until the benchmarks have ended.
    let server = if arguments.arguments.iter().any(needs_none) { None } else { Some(Server::provide()?) };
    if let Some(server) = &server {
        command.envs(server.connection().variables());
    }
    process::check(&mut command)
}

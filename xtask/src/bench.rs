//! `cargo xtask bench`: the benchmarks, with a PostgreSQL server of default durability.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    postgres::{Server, Version},
    process, python, workspace,
};

/// Run the benchmarks, with a PostgreSQL server as for `cargo xtask test`
///
/// Arguments but the named are es-bench's own: --peers and --growth for more, --filter NAME for less,
/// --write-results for docs/benchmarks.md, and what `cargo xtask bench -- --help` says.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Run each workload once, with small sizes, and without comparing the results with the targets
    #[arg(long)]
    pub(crate) quick: bool,
    /// Skip PostgreSQL
    #[arg(long)]
    pub(crate) without_postgres: bool,
    /// Use a server of this major version of PostgreSQL, installed with npm if it is missing
    #[arg(long, value_name = "VERSION", conflicts_with = "without_postgres")]
    pub(crate) postgres: Option<Version>,
    /// Skip the Python library; otherwise it is installed into `target/python`
    #[arg(long)]
    pub(crate) without_python: bool,
    /// Build without optimization, to check that every workload runs; the figures are meaningless
    #[arg(long, requires = "quick")]
    pub(crate) debug: bool,
    /// Arguments for es-bench
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo();
    command.arg("run");
    if !arguments.debug {
        command.arg("--release");
    }
    command.args(["--package", "es-bench", "--"]).args(&arguments.arguments);
    if arguments.arguments.iter().any(|argument| argument == "--help") {
        return process::check(&mut command);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    command.arg("--es").arg(build_tool(arguments.debug)?);
    if !arguments.without_python {
        // What cannot be had is named in the results; the rest is measured.
        if let Err(error) = python::make_environments() {
            eprintln!("xtask: {error:#}");
        }
        command.arg("--python").arg(python::directory());
    }
    // Lives until the benchmarks have ended.
    let server = if arguments.without_postgres { None } else { Some(Server::provide(arguments.postgres)?) };
    match &server {
        Some(server) => command.envs(server.variables()),
        None => command.arg("--without-postgres"),
    };
    process::check(&mut command)
}

/// Builds the tool `es`; returns its path.
fn build_tool(is_debug: bool) -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--package", "es-cli"]);
    if !is_debug {
        command.arg("--release");
    }
    process::check(&mut command)?;
    let directory = if is_debug { "debug" } else { "release" };
    Ok(workspace::target().join(directory).join(format!("es{}", std::env::consts::EXE_SUFFIX)))
}

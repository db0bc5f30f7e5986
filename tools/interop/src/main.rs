//! Processes in Rust and in Python on one database, at the same time. Run by `cargo xtask interop`.
//!
//! A [`configuration`] says which versions, which datastore, which codecs and whose tables; a [`scenario`]
//! lets [`participant`]s in both languages play their roles in it, each a process of its own, and [`checks`]
//! compares what they found. What Rust plays in `participant.rs`, Python plays in `python/participant.py`.
//! Beside that, [`transcoding`] compares the transcoders of both on random values, and [`personal`] their
//! personal values and sealed events.

// A command-line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod account;
mod bank;
mod checks;
mod configuration;
mod database;
mod findings;
mod ledger;
mod participant;
mod personal;
mod plain;
mod process;
mod role;
mod scenario;
mod transcoding;

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

use crate::{
    configuration::{Configuration, Datastore, PythonVersion},
    role::Role,
};

/// Run processes in Rust and in Python on one database at the same time
#[derive(Debug, Parser)]
#[command(name = "cargo xtask interop", disable_help_subcommand = true)]
struct Arguments {
    /// Skip PostgreSQL; otherwise POSTGRES_HOST, _PORT, _DBNAME, _USER and _PASSWORD name the server
    #[arg(long)]
    without_postgres: bool,
    /// Run only the configurations whose names contain this
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// The directory of the virtual environments `python-9.1` and `python-9.5`; given by `cargo xtask
    /// interop`
    #[arg(long, value_name = "DIRECTORY", default_value = "target/python")]
    environments: PathBuf,
    /// The seed of the random values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(subcommand)]
    participant: Option<Participant>,
}

#[derive(Debug, Subcommand)]
enum Participant {
    /// Run as a process of a scenario
    #[command(hide = true)]
    Participant { role: Role, turns: u32 },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.participant {
        Some(Participant::Participant { role, turns }) => runtime.block_on(participant::play(role, turns)),
        None => runtime.block_on(run(&arguments)),
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let configurations = Configuration::all().into_iter().filter(|configuration| {
        let is_left_out = arguments.without_postgres && configuration.needs_postgres();
        !is_left_out && configuration.to_string().contains(&arguments.filter)
    });
    let (mut passed, mut failed) = (0, 0);
    for python in PythonVersion::ALL {
        if !transcoding::name(python).contains(&arguments.filter) {
            continue;
        }
        match transcoding::compare(python, &arguments.environments, arguments.seed).await {
            Ok(count) => {
                passed += 1;
                println!(
                    "passed  {}: {count} values from seed {}",
                    transcoding::name(python),
                    arguments.seed
                );
            }
            Err(error) => {
                failed += 1;
                println!("FAILED  {}: {error:#}", transcoding::name(python));
            }
        }
    }
    for datastore in [Datastore::Sqlite, Datastore::Postgres] {
        for python in PythonVersion::ALL {
            let name = personal::name(python, datastore);
            let is_left_out = arguments.without_postgres && datastore == Datastore::Postgres;
            if is_left_out || !name.contains(&arguments.filter) {
                continue;
            }
            match personal::compare(python, datastore, &arguments.environments).await {
                Ok(count) => {
                    passed += 1;
                    println!("passed  {name}: {count} values");
                }
                Err(error) => {
                    failed += 1;
                    println!("FAILED  {name}: {error:#}");
                }
            }
        }
    }
    for configuration in configurations {
        match scenario::run(&configuration, &arguments.environments).await {
            Ok(summary) => {
                passed += 1;
                println!("passed  {configuration}: {summary}");
            }
            Err(error) => {
                failed += 1;
                println!("FAILED  {configuration}: {error:#}");
            }
        }
    }
    println!("{passed} passed, {failed} failed, in {:.0} s", start.elapsed().as_secs_f64());
    ensure!(failed == 0, "Rust and Python do not agree");
    ensure!(passed > 0, "nothing is named {:?}", arguments.filter);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}

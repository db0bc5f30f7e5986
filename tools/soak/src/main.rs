//! `cargo xtask soak`: a mixed load for some minutes, and a check that no resource grows; with `--mixed`, all
//! kinds of participants on one events table, with faults, and a check of the events that each received.

// A command-line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use es_soak::mixed::{self, Settings};

/// Run a mixed load on each datastore, and report the resources that grew
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// The duration; may be a fraction
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Run every kind of participant on one events table, with faults
    #[arg(long)]
    mixed: bool,
    /// `serialized` or `parallel`
    #[arg(long, requires = "mixed", default_value = "serialized")]
    ordering: String,
    /// The Python of an environment with version 9.5 of the Python library
    #[arg(long, requires = "mixed")]
    python: Option<PathBuf>,
    /// A pgbouncer between this library and the server
    #[arg(long, requires = "mixed")]
    pgbouncer: Option<PathBuf>,
    /// Run as a process of a mixed soak
    #[arg(long, hide = true)]
    job: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("es-soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = &arguments.job {
        return mixed::participate(job).await;
    }
    let duration =
        Duration::try_from_secs_f64(arguments.minutes * 60.0).context("no such number of minutes")?;
    if arguments.mixed {
        return run_mixed(arguments, duration).await;
    }
    let report = es_soak::run(duration).await?;
    println!("{report}");
    match report.growing().as_slice() {
        [] => Ok(()),
        growing => bail!("too much growth: {}", growing.join(", ")),
    }
}

async fn run_mixed(arguments: Arguments, duration: Duration) -> Result<()> {
    let Arguments { ordering, python, pgbouncer, .. } = arguments;
    let is_parallel = match ordering.as_str() {
        "serialized" => false,
        "parallel" => true,
        _ => bail!("ordering {ordering:?} is not known: use serialized or parallel"),
    };
    let program = std::env::current_exe()?;
    let settings = Settings { python, pooler: pgbouncer, ..Settings::new(&program, is_parallel, duration) };
    let report = mixed::run(&settings).await?;
    println!("{ordering}: {report}");
    ensure!(report.violations.is_empty(), "a promise was broken");
    Ok(())
}

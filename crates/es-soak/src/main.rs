//! `cargo xtask soak`: a mixed load for so many minutes, and what grew under it.

// A command-line program talks to people by printing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Parser;

/// Puts a mixed load on each datastore, and says what grew under it
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// For how long; fractions are fine
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
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
    let Arguments { minutes } = Arguments::parse();
    let duration = Duration::try_from_secs_f64(minutes * 60.0).context("no such number of minutes")?;
    let report = es_soak::run(duration).await?;
    println!("{report}");
    match report.growing().as_slice() {
        [] => Ok(()),
        growing => bail!("too much growth: {}", growing.join(", ")),
    }
}

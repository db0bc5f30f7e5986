//! `cargo xtask faults`: kills processes that write, read and process, round after round.

// A command-line program talks to people by printing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use es_faults::{
    child::{self, Job},
    life::{self, Tally},
    process,
};

/// Kills processes that write, read and process databases, and checks what is left
#[derive(Debug, Parser)]
#[command(name = "cargo xtask faults", bin_name = "cargo xtask faults")]
struct Arguments {
    /// How many rounds: in each, several processes are started and killed
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// The seed of the first database; the next has the next
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What one of the processes does
    #[arg(long = process::JOB.trim_start_matches('-'), hide = true)]
    job: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("es-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = arguments.job {
        let job: Job = serde_json::from_str(&job).context("no job")?;
        return child::run(job).await;
    }
    let program = std::env::current_exe()?;
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut left = arguments.rounds;
    for seed in arguments.seed.. {
        if left == 0 {
            break;
        }
        let rounds = left.min(life::ROUNDS);
        left -= rounds;
        let lived = life::live(seed, rounds, &program).await?;
        println!("seed {seed}: {lived}");
        tally += lived;
    }
    println!("all promises kept in {:.0} s: {tally}", began.elapsed().as_secs_f64());
    Ok(())
}

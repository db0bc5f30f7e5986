//! `cargo xtask faults`: kills processes that write, read and process, round after round.

// A command-line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use es_faults::{
    campaign::{self, Tally},
    child::{self, Job},
    cluster::Cluster,
    process, progress, workers,
};

/// Kill processes that write, read and process databases, and check the databases
#[derive(Debug, Parser)]
#[command(name = "cargo xtask faults", bin_name = "cargo xtask faults")]
struct Arguments {
    /// The number of rounds: in each, several processes are started and killed
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// The seed of the first database; each further one has the next seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of recorders and processors, disturb the workers of a partitioned consumer
    #[arg(long)]
    workers: bool,
    /// Instead of the rounds, cause this number of faults of a cluster's nodes
    #[arg(long, conflicts_with = "rounds")]
    failovers: Option<u32>,
    /// Run as a child process with this job
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
    if arguments.workers {
        return disturb_workers(&arguments, &program).await;
    }
    let cluster = match arguments.failovers {
        Some(_) => Some(Cluster::from_environment().context("there is no cluster")?),
        None => None,
    };
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut left = arguments.failovers.unwrap_or(arguments.rounds);
    for seed in arguments.seed.. {
        if left == 0 {
            break;
        }
        let rounds = left.min(campaign::ROUNDS);
        left -= rounds;
        let outcome = campaign::run(seed, rounds, &program, cluster.as_ref()).await?;
        progress::show(format_args!(""));
        println!("seed {seed}: {outcome}");
        tally += outcome;
    }
    println!("all promises kept in {:.0} s: {tally}", began.elapsed().as_secs_f64());
    Ok(())
}

async fn disturb_workers(arguments: &Arguments, program: &Path) -> Result<()> {
    let began = Instant::now();
    let mut tally = workers::Tally::default();
    let mut left = arguments.rounds;
    for seed in arguments.seed.. {
        if left == 0 {
            break;
        }
        let rounds = left.min(workers::ROUNDS);
        left -= rounds;
        let outcome = workers::run(seed, rounds, program, None).await?;
        progress::show(format_args!(""));
        println!("seed {seed}: {outcome}");
        tally += outcome;
    }
    println!("all promises kept in {:.0} s: {tally}", began.elapsed().as_secs_f64());
    Ok(())
}

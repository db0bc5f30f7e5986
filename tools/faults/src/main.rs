//! `cargo xtask faults`: kills processes that write, read and process, round after round.

// A command-line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{fmt::Display, ops::AddAssign, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use es_faults::{
    campaign,
    child::{self, Job},
    cluster::{Cluster, Fault},
    process, progress, switches, workers,
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
    /// Switch between versions of a projection instead
    #[arg(long, conflicts_with = "failovers")]
    projections: bool,
    /// Instead of recorders and processors, disturb the workers of a partitioned consumer
    #[arg(long, conflicts_with_all = ["failovers", "projections"])]
    workers: bool,
    /// Instead of the rounds, cause this number of faults of a cluster's nodes
    #[arg(long, conflicts_with = "rounds")]
    failovers: Option<u32>,
    /// Cause faults of this kind alone
    #[arg(long, requires = "failovers")]
    fault: Option<Fault>,
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
    if arguments.projections {
        let run = async |seed, rounds| switches::run(seed, rounds, &program, None).await;
        return repeat(&arguments, switches::ROUNDS, run).await;
    }
    if arguments.workers {
        let run = async |seed, rounds| workers::run(seed, rounds, &program, None).await;
        return repeat(&arguments, workers::ROUNDS, run).await;
    }
    let cluster = match (arguments.failovers, arguments.fault) {
        (None, _) => None,
        (Some(_), None) => Some(Cluster::from_environment().context("there is no cluster")?),
        (Some(_), Some(fault)) => {
            Some(Cluster::from_environment().context("there is no cluster")?.only(fault))
        }
    };
    let has_cuts = cluster.as_ref().is_none_or(|cluster| cluster.faults().iter().any(|fault| fault.is_cut()));
    if !has_cuts && arguments.fault.is_none() {
        println!("The network was not cut: the nodes have no namespaces of their own.");
    }
    let run = async |seed, rounds| campaign::run(seed, rounds, &program, cluster.as_ref()).await;
    repeat(&arguments, campaign::ROUNDS, run).await
}

/// Runs campaigns with further seeds until all rounds are done.
async fn repeat<T: AddAssign + Default + Display>(
    arguments: &Arguments,
    rounds_of_seed: u32,
    run: impl AsyncFn(u64, u32) -> Result<T>,
) -> Result<()> {
    let began = Instant::now();
    let mut tally = T::default();
    let mut left = arguments.failovers.unwrap_or(arguments.rounds);
    for seed in arguments.seed.. {
        if left == 0 {
            break;
        }
        let rounds = left.min(rounds_of_seed);
        left -= rounds;
        let outcome = run(seed, rounds).await?;
        progress::show(format_args!(""));
        println!("seed {seed}: {outcome}");
        tally += outcome;
    }
    println!("all promises kept in {:.0} s: {tally}", began.elapsed().as_secs_f64());
    Ok(())
}

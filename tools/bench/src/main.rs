//! Benchmarks: the cost of this library compared with the bare drivers. Run by `cargo xtask bench`.
//!
//! A workload is defined once (`workload`), a measured system is one adapter (`systems`), and an experiment
//! (`suites`) runs the same work on several systems in turns (`bench`). The results are printed as tables
//! (`table`) and written as JSON (`report`). Figures of different runs are not comparable, so targets
//! are ratios within one run.

// A command-line program reports to its user by printing.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod child;
mod data;
mod details;
mod machine;
mod plan;
mod plot;
mod report;
mod scale;
mod statistics;
mod suites;
mod summary;
mod system;
mod systems;
mod table;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    bench::{Bench, Scale},
    child::Job,
    details::Details,
    machine::Machine,
    report::{FORMAT, Report},
    suites::{postgres::Schemas, sqlite::Files},
    summary::Page,
    systems::{peers, program::Programs, python},
};

/// Measure this library, the bare drivers and alternative libraries
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// Run each workload once, with small sizes, and without comparing the results with the targets
    #[arg(long)]
    quick: bool,
    /// Skip PostgreSQL; otherwise POSTGRES_HOST, _PORT, _DBNAME, _USER and _PASSWORD name the server
    #[arg(long)]
    without_postgres: bool,
    /// Measure the Python library in the virtual environments in this directory; `cargo xtask bench` creates
    /// them, and passes this option unless --without-python is given
    #[arg(long, value_name = "DIRECTORY")]
    python: Option<PathBuf>,
    /// Also build other Rust libraries from the registry and measure them
    #[arg(long)]
    peers: bool,
    /// Also measure appends and loads with 0, 1 million and 10 million stored events, with random and with
    /// time-ordered ids: takes twenty more minutes and 12 GB of disk
    #[arg(long)]
    growth: bool,
    /// With --growth: skip larger numbers of stored events
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    growth_up_to: usize,
    /// Measure what grows with the log, up to so many events, instead of everything else: pages, bytes and
    /// log records, which do not depend on the machine's speed. With --write-results also writes
    /// docs/scale.md
    #[arg(long, value_name = "NUMBER")]
    scale_up_to: Option<usize>,
    /// Limit the rounds of each experiment
    #[arg(long, value_name = "NUMBER", default_value_t = usize::MAX, hide_default_value = true)]
    rounds: usize,
    /// Run only the experiments whose names contain this, ignoring case
    #[arg(long, value_name = "NAME", default_value = "")]
    filter: String,
    /// Keep the results of the last run for the experiments that this one does not repeat
    #[arg(long)]
    add: bool,
    /// Also write docs/benchmarks.md, its plots and docs/benchmarks/DATE.md
    #[arg(long)]
    write_results: bool,
    /// Run as a child process of an experiment
    #[arg(long, hide = true, value_name = "JSON")]
    child: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match &arguments.child {
        Some(job) => runtime.block_on(run_child(serde_json::from_str(job)?)),
        None => runtime.block_on(run(&arguments)),
    }
}

async fn run_child(job: Job) -> Result<()> {
    match job {
        Job::Mapper(job) => job.serve().await,
        Job::Store(job) => job.serve().await,
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let directory = directory()?;
    let date = OffsetDateTime::now_utc().format(&Rfc3339)?;
    if let Some(up_to) = arguments.scale_up_to {
        return measure_scale(up_to, &directory, date, arguments.write_results).await;
    }
    // Read now: the sources may change during the run.
    let commit = machine::commit();
    let mut machine = Machine::describe();
    let scale = if arguments.quick { Scale::Quick } else { Scale::Full };
    let mut bench = Bench::new(scale, &arguments.filter, arguments.rounds);
    bench.max_stored = arguments.growth_up_to;
    let python = python::programs(arguments.python.as_deref());
    let mut programs = Programs { python, ..Programs::default() };
    if arguments.peers {
        peers::join(&mut programs, &directory)?;
    } else {
        bench.report_missing("other Rust libraries", "left out without --peers");
    }

    suites::mapper::run(&mut bench, &programs).await?;
    suites::popo::run(&mut bench, &programs).await?;
    let databases = Databases::new(&directory)?;
    suites::keys::run(&mut bench, &databases.0).await?;
    suites::sqlite::run(&mut bench, &programs, &databases.0).await?;
    if arguments.growth {
        suites::growth::run(&mut bench, &Files::new(&databases.0.join("growth"))?).await?;
    }
    if arguments.without_postgres {
        bench.report_missing("PostgreSQL", "left out by --without-postgres");
    } else {
        suites::postgres::run(&mut bench, &programs).await?;
        if arguments.growth {
            suites::growth::run(&mut bench, &Schemas { is_tracked: false }).await?;
        }
    }

    suites::following::run(&mut bench, &databases.0, !arguments.without_postgres).await?;

    machine.load_after = machine::load();
    let Bench { durability, experiments, missing, .. } = bench;
    let report = Report {
        format: FORMAT,
        date,
        commit,
        earlier_runs: Vec::new(),
        seed: data::SEED,
        is_quick: arguments.quick,
        machine,
        durability,
        experiments,
        missing,
    };
    print!("{}{}", table::RunConditions(&report), table::Targets(&report));
    write_all(arguments, &directory, report)
}

async fn measure_scale(up_to: usize, directory: &Path, date: String, is_written: bool) -> Result<()> {
    let databases = Databases::new(directory)?;
    let measurements = scale::measure(up_to, &databases.0, date).await?;
    write(&directory.join("scale.json"), &serde_json::to_string_pretty(&measurements)?)?;
    print!("{}", scale::tables(&measurements));
    if is_written { scale::write_page(&measurements) } else { Ok(()) }
}

/// Writes the results as JSON, and the pages of the repository if requested.
fn write_all(arguments: &Arguments, directory: &Path, report: Report) -> Result<()> {
    // A quick run does not overwrite the figures of a full run.
    let prefix = if arguments.quick { "quick-" } else { "" };
    let results = directory.join(format!("{prefix}results.json"));
    let report = match fs::read(&results) {
        Ok(earlier) if arguments.add => report
            .add_to(serde_json::from_slice(&earlier).context("cannot read the results of the last run")?),
        _ => report,
    };
    write(&results, &serde_json::to_string_pretty(&report)?)?;
    if arguments.write_results { write_pages(&report) } else { Ok(()) }
}

/// Charts of appends by the number of tasks, of each datastore.
const BY_TASKS: &str = "insert, 1 × 200 B per commit";
/// The files of the plots, and their titles.
const THROUGHPUT: (&str, &str) = ("throughput.svg", "Events/s by the number of tasks");
const LATENCY: (&str, &str) = ("latency.svg", "99th percentile of an append in ms by the number of tasks");

fn write_pages(report: &Report) -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let notes = fs::read_to_string(package.join("NOTES.md")).context("cannot read NOTES.md")?;
    let docs = package.join("../../docs").canonicalize()?;
    let directory = docs.join("benchmarks");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let plots = [
        (THROUGHPUT, plot::draw(report, BY_TASKS, "events/s", plot::events_per_second)?),
        (LATENCY, plot::draw(report, BY_TASKS, "ms", plot::p99_milliseconds)?),
    ];
    let mut drawn = Vec::new();
    for ((file, title), svg) in plots {
        let Some(svg) = svg else { continue };
        write(&directory.join(file), &svg)?;
        drawn.push((format!("benchmarks/{file}"), title));
    }
    let details = format!("benchmarks/{}.md", report.day());
    write(&docs.join(&details), &Details(report).to_string())?;
    let page = Page { report, notes: &notes, details: &details, plots: &drawn };
    write(&docs.join("benchmarks.md"), &page.to_string())
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Returns `target/bench`, next to the profile directory of this program.
fn directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| anyhow!("the program is not in a target directory"))?;
    let directory = target.join("bench");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

/// The directory of database files. It is on the disk of the target directory, since a temporary directory
/// may be in memory. Files that an interrupted run left there are removed by the next run.
struct Databases(PathBuf);

impl Databases {
    fn new(parent: &Path) -> Result<Self> {
        let databases = Self(parent.join("databases"));
        databases.remove();
        fs::create_dir(&databases.0).with_context(|| format!("cannot create {}", databases.0.display()))?;
        Ok(databases)
    }

    /// Removes the files. A failure is ignored: files that remain make the next run fail with a message.
    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        self.remove();
    }
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

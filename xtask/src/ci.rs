//! `cargo xtask ci`: everything that a change must pass, cheap checks first.

use std::{
    fmt,
    io::{self, Write},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::{
    bench, interop, lint, package, postgres, postgres::Version, process, readme, soak, test, tools, workspace,
};

/// Run all checks that a change must pass
///
/// These are formatting, the rules of `cargo xtask lint`, lints (all features, then each alone),
/// documentation, tests as `cargo xtask test` runs them, those of es-postgres on the oldest and the newest
/// version of PostgreSQL (where npm can install them), Rust and Python on one database as `cargo xtask
/// interop` runs them, the quickstart example, the snippets of the READMEs in new packages, the packages as
/// they would be published, a short run of the benchmarks without their targets, and the licences, sources
/// and advisories of dependencies. Every step is run even if an earlier one fails.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Skip everything that needs a PostgreSQL server
    #[arg(long)]
    without_postgres: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", format);
    steps.run("repository rules", repository_rules);
    steps.run("lints", lints);
    steps.run("each feature alone", each_feature);
    steps.run("documentation", documentation);
    let mut tests = None;
    // es-postgres is tested by itself on each server, so that its tests are compiled once.
    steps.run("tests", || {
        let without_postgres = arguments.without_postgres;
        let exclude = if without_postgres { Vec::new() } else { vec![test::POSTGRES_PACKAGE.to_owned()] };
        let run =
            test::run_tests(&test::Arguments { without_postgres, exclude, ..test::Arguments::default() });
        add(run?, &mut tests)
    });
    if !arguments.without_postgres {
        steps.run("es-postgres", || add(test::run_on(None)?, &mut tests));
        for (name, version) in
            [("oldest PostgreSQL", Version::OLDEST), ("newest PostgreSQL", Version::NEWEST)]
        {
            steps.run(name, || on_version(version, &mut tests));
        }
    }
    steps.run("beside Python", || {
        let without_postgres = arguments.without_postgres;
        interop::run(&interop::Arguments { without_postgres, ..interop::Arguments::default() })?;
        Ok(Verdict::Passed)
    });
    if !arguments.without_postgres {
        steps.run("serialized soak", || mixed_soak(soak::Ordering::Serialized));
        steps.run("parallel soak", || mixed_soak(soak::Ordering::Parallel));
    }
    steps.run("quickstart", quickstart);
    steps.run("READMEs", || readme::run().map(|()| Verdict::Passed));
    steps.run("packages", || package::run(&package::Arguments::default()).map(|()| Verdict::Passed));
    steps.run("benchmarks", || benchmarks(arguments.without_postgres));
    steps.run("dependencies", dependencies);
    steps.run("advisories", advisories);

    print!("\n{steps}");
    if let Some(tests) = tests {
        tests.print();
    }
    steps.result()
}

fn format() -> Result<Verdict> {
    passes(&mut workspace::format(&["--check"]))
}

fn repository_rules() -> Result<Verdict> {
    lint::run(&lint::Arguments::default())?;
    Ok(Verdict::Passed)
}

fn lints() -> Result<Verdict> {
    let lint = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "--deny", "warnings"];
    passes(workspace::cargo().args(lint))
}

/// es-postgres's tests on a version of PostgreSQL; not checked where versions cannot be installed.
fn on_version(version: Version, tests: &mut Option<test::Outcome>) -> Result<Verdict> {
    if let Err(reason) = postgres::availability() {
        return Ok(Verdict::NotChecked(reason));
    }
    add(test::run_on(Some(version))?, tests)
}

/// Adds an outcome to the total; an error if a test failed.
fn add(outcome: test::Outcome, tests: &mut Option<test::Outcome>) -> Result<Verdict> {
    let is_success = outcome.is_success();
    match tests {
        Some(tests) => tests.add(outcome),
        None => *tests = Some(outcome),
    }
    ensure!(is_success, "tests failed");
    Ok(Verdict::Passed)
}

/// Each feature of each published package, none, and all: lints, since code that only some features use is
/// otherwise dead.
fn each_feature() -> Result<Verdict> {
    let lint = ["clippy", "--workspace", "--ignore-private", "--each-feature", "--", "--deny", "warnings"];
    passes(tools::HACK.command()?.args(lint))
}

fn documentation() -> Result<Verdict> {
    let document = ["doc", "--workspace", "--no-deps", "--all-features"];
    passes(workspace::cargo().args(document).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Some seconds of every kind of participant, the Python library included.
fn mixed_soak(ordering: soak::Ordering) -> Result<Verdict> {
    let slice =
        soak::Arguments { minutes: 0.2, mixed: true, ordering, debug: true, ..soak::Arguments::default() };
    soak::run(&slice)?;
    Ok(Verdict::Passed)
}

fn quickstart() -> Result<Verdict> {
    passes(workspace::cargo().args(["run", "--example", "quickstart"]))
}

/// Runs every workload once. Errors fail the step, durations do not. If the Python library cannot be
/// installed, the run says so.
fn benchmarks(without_postgres: bool) -> Result<Verdict> {
    bench::run(&bench::Arguments {
        quick: true,
        debug: true,
        without_postgres,
        ..bench::Arguments::default()
    })?;
    Ok(Verdict::Passed)
}

fn dependencies() -> Result<Verdict> {
    passes(tools::DENY.command()?.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))
}

/// The database of advisories is fetched from the network, which is not everywhere open: no failure of the
/// change.
fn advisories() -> Result<Verdict> {
    let output = tools::DENY.command()?.args(["check", "advisories"]).output()?;
    io::stderr().write_all(&output.stderr)?;
    if output.status.success() {
        return Ok(Verdict::Passed);
    }
    if String::from_utf8_lossy(&output.stderr).contains("failed to fetch advisory database") {
        return Ok(Verdict::NotChecked("database unreachable"));
    }
    bail!("there are advisories about dependencies")
}

fn passes(command: &mut Command) -> Result<Verdict> {
    process::check(command)?;
    Ok(Verdict::Passed)
}

#[derive(Debug)]
enum Verdict {
    Passed,
    NotChecked(&'static str),
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(formatter, "passed"),
            Self::NotChecked(reason) => write!(formatter, "not checked, {reason}"),
            Self::Failed => write!(formatter, "FAILED"),
        }
    }
}

/// The verdict and the duration of each step.
#[derive(Debug, Default)]
struct Steps(Vec<(&'static str, Verdict, Duration)>);

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<Verdict>) {
        if process::interrupted().is_some() {
            return;
        }
        eprintln!("\n=== {name}");
        let start = Instant::now();
        let verdict = step().unwrap_or_else(|error| {
            eprintln!("xtask: {error:#}");
            Verdict::Failed
        });
        self.0.push((name, verdict, start.elapsed()));
    }

    fn result(&self) -> Result<()> {
        let failed = self.0.iter().filter(|(_, verdict, _)| matches!(verdict, Verdict::Failed));
        let names: Vec<_> = failed.map(|(name, ..)| *name).collect();
        ensure!(names.is_empty(), "failed: {}", names.join(", "));
        Ok(())
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict, duration) in &self.0 {
            writeln!(formatter, "{name:<20} {:>7.1} s  {verdict}", duration.as_secs_f64())?;
        }
        let total: Duration = self.0.iter().map(|(_, _, duration)| *duration).sum();
        writeln!(formatter, "{:<20} {:>7.1} s", "all", total.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::{Steps, Verdict};

    #[test]
    fn a_failed_step_fails_the_run_and_is_named() {
        let mut steps = Steps::default();
        steps.run("first", || Ok(Verdict::Passed));
        steps.run("second", || anyhow::bail!("broken"));
        steps.run("third", || Ok(Verdict::NotChecked("no network")));
        assert_eq!(steps.result().unwrap_err().to_string(), "failed: second");
        assert!(steps.to_string().contains("third"), "the steps after a failure are run");
    }

    #[test]
    fn a_step_that_cannot_be_checked_does_not_fail_the_run() {
        let mut steps = Steps::default();
        steps.run("only", || Ok(Verdict::NotChecked("no network")));
        assert!(steps.result().is_ok());
        assert!(steps.to_string().contains("not checked, no network"));
    }
}

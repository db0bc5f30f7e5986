//! `cargo xtask mutants`: changes the code in hundreds of small ways, and asks whether a test notices.

use std::{
    fmt::{self, Write},
    fs, io,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, tools, workspace};

/// The packages that every stored byte and every wait passes.
const PACKAGES: [&str; 4] = ["es-core", "es-transcode", "es-crypto", "es-compress"];

/// Packages whose rules are tested in a package on top of them, too.
const TESTED_BY: [(&str, &str); 1] = [("es-transcode", "es-derive")];

/// Change the code in hundreds of small ways, and say which of them no test notices
///
/// A mutant that is missed wants a test, or a line in `.cargo/mutants.toml` that says why it needs none.
/// Reports are left in `mutants/` of the target directory. A package takes minutes to an hour.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Mutate this package; can be repeated
    #[arg(long = "package", short, value_name = "PACKAGE", default_values = PACKAGES)]
    packages: Vec<String>,
    /// Arguments for `cargo mutants`: --file NAME, --shard 0/4, --iterate
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut missed = 0;
    let mut summary = String::new();
    for package in &arguments.packages {
        let found = mutate(package, &arguments.arguments)?;
        missed += found.missed;
        writeln!(summary, "{package:<20} {found}")?;
    }
    print!("\n{summary}");
    ensure!(missed == 0, "no test notices {missed} of the mutants");
    Ok(())
}

fn mutate(package: &str, arguments: &[String]) -> Result<Found> {
    let directory = workspace::target().join("mutants");
    let output = directory.join(package);
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;

    let mut command = tools::MUTANTS.command()?;
    command.args(["--package", package, "--test-package", package]).arg("--output").arg(&output);
    for (_, tester) in TESTED_BY.iter().filter(|(tested, _)| *tested == package) {
        command.args(["--test-package", tester]);
    }
    // Dependencies are compiled once for all packages.
    command.args(arguments).env("CARGO_TARGET_DIR", directory.join("build"));
    let status = process::run(&mut command)?;
    // All noticed, some missed, some timed out; everything else is no answer.
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants could not test {package}: {status}");
    Found::read(&output.join("mutants.out"))
}

/// The number of mutants by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    noticed: usize,
    /// They did not end, which is noticed too.
    timed_out: usize,
    missed: usize,
    /// They did not compile.
    unviable: usize,
}

impl Found {
    fn read(report: &Path) -> Result<Self> {
        let lines = |file| match fs::read_to_string(report.join(file)) {
            Ok(text) => Ok(text.lines().count()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| format!("cannot read {file} in {}", report.display())),
        };
        Ok(Self {
            noticed: lines("caught.txt")?,
            timed_out: lines("timeout.txt")?,
            missed: lines("missed.txt")?,
            unviable: lines("unviable.txt")?,
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { noticed, timed_out, missed, unviable } = self;
        let all = noticed + timed_out + missed + unviable;
        write!(
            formatter,
            "{all} mutants: {noticed} noticed, {timed_out} timed out, {missed} missed, {unviable} do not compile"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Found;

    #[test]
    fn the_report_is_counted() {
        let report = tempfile::tempdir().unwrap();
        std::fs::write(report.path().join("caught.txt"), "a\nb\nc\n").unwrap();
        std::fs::write(report.path().join("missed.txt"), "d\n").unwrap();
        std::fs::write(report.path().join("timeout.txt"), "").unwrap();
        let found = Found::read(report.path()).unwrap();
        assert_eq!(found.to_string(), "4 mutants: 3 noticed, 0 timed out, 1 missed, 0 do not compile");
    }
}

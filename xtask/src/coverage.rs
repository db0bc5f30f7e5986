//! `cargo xtask coverage`: which lines the tests run, with a PostgreSQL server.

use std::{collections::BTreeMap, fmt, fs};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, test, tools, workspace};

/// Run the tests, and report the covered lines of each file
///
/// Tests in the source files count as lines of them; examples in the documentation are not run. A report
/// that shows the lines is written to `coverage/html` of the target directory. The PostgreSQL server is
/// found as for `cargo xtask test`. Needs the toolchain's component llvm-tools, or `LLVM_COV` and
/// `LLVM_PROFDATA` with the paths of such programs, of the major version of LLVM that `rustc -vV` reports.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Skip everything that needs a PostgreSQL server
    #[arg(long)]
    without_postgres: bool,
    /// Run only the tests of this package, and count only its lines; can be repeated
    #[arg(long = "package", short, value_name = "PACKAGE")]
    packages: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let directory = workspace::target().join("coverage");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let tracefile = directory.join("lines.lcov");

    let mut command = tools::llvm_cov()?;
    command.args(["--lcov", "--output-path"]).arg(&tracefile);
    // Some tests kill processes, which may leave half of their counts.
    command.args(["--failure-mode", "all"]);
    let outcome = test::run_with(
        command,
        &test::Arguments {
            without_postgres: arguments.without_postgres,
            packages: arguments.packages.clone(),
            ..test::Arguments::default()
        },
        None,
    )?;
    outcome.print();
    ensure!(outcome.is_success(), "the tests failed, or their lines could not be counted");

    process::check(
        tools::llvm_cov()?
            .args(["report", "--failure-mode", "all", "--html", "--output-dir"])
            .arg(&directory),
    )?;
    let lcov =
        fs::read_to_string(&tracefile).with_context(|| format!("cannot read {}", tracefile.display()))?;
    print!("\n{}", Coverage::parse(&lcov, &format!("{}/", workspace::root().display())));
    Ok(())
}

/// Lines of code, and how many of them were run.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    all: u64,
    run: u64,
}

impl fmt::Display for Lines {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.run as f64 / self.all.max(1) as f64;
        write!(formatter, "{percent:>5.1} %  {:>6} of {:>6} lines", self.run, self.all)
    }
}

/// The lines of each file, by package.
#[derive(Debug, Default)]
struct Coverage(BTreeMap<String, BTreeMap<String, Lines>>);

impl Coverage {
    /// Reads the files beneath `root` out of a tracefile of lcov: `SF:` begins a file, `LF:` and `LH:` count
    /// its lines.
    fn parse(lcov: &str, root: &str) -> Self {
        let mut coverage = Self::default();
        let mut lines = &mut Lines::default();
        for record in lcov.lines() {
            match record.split_once(':') {
                Some(("SF", path)) => lines = coverage.file(path.strip_prefix(root).unwrap_or(path)),
                Some(("LF", count)) => lines.all = count.parse().unwrap_or_default(),
                Some(("LH", count)) => lines.run = count.parse().unwrap_or_default(),
                _ => {}
            }
        }
        coverage
    }

    fn file(&mut self, path: &str) -> &mut Lines {
        let path = path.strip_prefix("crates/").unwrap_or(path);
        let (package, file) = path.split_once('/').unwrap_or(("", path));
        self.0.entry(package.to_owned()).or_default().entry(file.to_owned()).or_default()
    }
}

fn sum<'l>(lines: impl IntoIterator<Item = &'l Lines>) -> Lines {
    let add = |sum: Lines, lines: &Lines| Lines { all: sum.all + lines.all, run: sum.run + lines.run };
    lines.into_iter().fold(Lines::default(), add)
}

impl fmt::Display for Coverage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (package, files) in &self.0 {
            writeln!(formatter, "{package:<40} {}", sum(files.values()))?;
            for (file, lines) in files {
                writeln!(formatter, "  {file:<38} {lines}")?;
            }
        }
        writeln!(formatter, "{:<40} {}", "all", sum(self.0.values().flat_map(BTreeMap::values)))
    }
}

#[cfg(test)]
mod tests {
    use super::Coverage;

    const LCOV: &str = "SF:/house/crates/es-core/src/topic.rs\nDA:3,1\nLF:10\nLH:9\nend_of_record\n\
        SF:/house/crates/es-core/src/value/text.rs\nLF:30\nLH:30\nend_of_record\n\
        SF:/house/xtask/src/main.rs\nLF:5\nLH:0\nend_of_record\n";

    #[test]
    fn lines_are_counted_by_file_and_package() {
        let shown = Coverage::parse(LCOV, "/house/").to_string();
        let lines: Vec<_> =
            shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "es-core 97.5 % 39 of 40 lines",
                "src/topic.rs 90.0 % 9 of 10 lines",
                "src/value/text.rs 100.0 % 30 of 30 lines",
                "xtask 0.0 % 0 of 5 lines",
                "src/main.rs 0.0 % 0 of 5 lines",
                "all 86.7 % 39 of 45 lines",
            ]
        );
    }
}

//! `cargo xtask fuzz`: hands each fuzz target what libFuzzer makes up, for some time or a number of inputs.

use std::{
    fmt::{self, Write},
    fs::{self, File},
    io::{self, IsTerminal},
    path::PathBuf,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, tools, workspace};

/// Run each fuzz target for some time
///
/// A target starts with the files of its corpus in `tools/fuzz/corpus` and those that earlier runs found.
/// Inputs that reach new code are written to `tools/fuzz/corpus` of the target directory, next to the output
/// of each target. Fails if an input violates a property, times out, or takes too much memory, and names the
/// file of the input. The file belongs in `tools/fuzz/corpus` once the defect is fixed.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The duration of each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// The number of inputs of each target, instead of a duration
    #[arg(long, conflicts_with = "seconds")]
    runs: Option<u64>,
    /// Run only this target; can be repeated
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Use this sanitizer; `none` for compilers without one
    #[arg(long, default_value = "address")]
    sanitizer: String,
}

impl Arguments {
    /// Returns the end of each target, for people.
    fn limit(&self) -> String {
        match self.runs {
            Some(runs) => format!("{runs} inputs"),
            None => format!("{} s", self.seconds),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets(&arguments.targets)?;
    process::check(&mut cargo_fuzz("build", arguments)?)?;

    let mut broken = 0;
    let mut summary = String::new();
    for target in &targets {
        let report = fuzz(target, arguments)?;
        broken += usize::from(report.is_broken);
        writeln!(summary, "{target:<16} {report}")?;
    }
    print!("\n{summary}");
    ensure!(broken == 0, "{broken} of {} targets violated a property", targets.len());
    Ok(())
}

/// Returns the requested targets, or all.
fn targets(asked: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(workspace::root().join("tools/fuzz/targets/fuzz_targets"))? {
        all.extend(entry?.path().file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    all.sort();
    for name in asked {
        ensure!(all.contains(name), "there is no target {name}; there are {}", all.join(", "));
    }
    all.retain(|name| asked.is_empty() || asked.contains(name));
    Ok(all)
}

fn cargo_fuzz(subcommand: &str, arguments: &Arguments) -> Result<Command> {
    let mut command = tools::FUZZ.command()?;
    command.args([subcommand, "--sanitizer", &arguments.sanitizer]);
    command.arg("--target-dir").arg(directory().join("build"));
    command.arg("--fuzz-dir").arg(workspace::root().join("tools/fuzz/targets"));
    if arguments.sanitizer != "none" {
        // Sanitizers are in every compiler, and still an unstable option.
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    Ok(command)
}

fn directory() -> PathBuf {
    workspace::target().join("fuzz")
}

fn fuzz(target: &str, arguments: &Arguments) -> Result<Report> {
    let found = directory().join("corpus").join(target);
    let artifacts = directory().join("artifacts").join(target);
    for directory in [&found, &artifacts] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let log = directory().join(format!("{target}.log"));
    let output = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;

    eprintln!("=== {target} for {}, {}", arguments.limit(), log.display());
    let mut command = cargo_fuzz("run", arguments)?;
    // The fuzzer writes into the first directory.
    command.arg(target).arg(&found).arg(workspace::root().join("tools/fuzz/corpus").join(target)).arg("--");
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(match arguments.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={}", arguments.seconds),
    });
    command.args(LIMITS).arg("-print_final_stats=1");
    let status = with_progress(target, &arguments.limit(), || process::run(command.stderr(output)))?;
    let log = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Report::parse(&String::from_utf8_lossy(&log), status.success()))
}

/// Shows on a terminal how far the work is, which itself prints nothing.
fn with_progress<T>(target: &str, limit: &str, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        let (working, ended) = mpsc::channel::<()>();
        scope.spawn(move || {
            let start = Instant::now();
            while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                eprint!("\r\x1b[K{target}: {} s, of {limit}", start.elapsed().as_secs());
            }
            eprint!("\r\x1b[K");
        });
        let result = work();
        drop(working);
        result
    })
}

/// The limits of libFuzzer for each input.
const LIMITS: [&str; 4] = [
    // In wall-clock seconds, since a busy machine may stop the process for minutes.
    "-timeout=300",
    // What merely takes long is no finding.
    "-report_slow_units=300",
    // In one piece, by C too. The largest that is meant to be is a window of zstd, of the limit of 64 KiB.
    "-malloc_limit_mb=64",
    // Of the whole process, of which the sanitizer keeps some hundreds for what was freed.
    "-rss_limit_mb=2048",
];

/// The final report of the fuzzer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    runs: String,
    runs_per_second: String,
    /// `cov: 3 ft: 5 corp: 2/17b`: places in the code that were reached, with how often and which comparisons
    /// made of them more features, and the inputs that this takes.
    coverage: String,
    slowest: String,
    memory: String,
    inputs: Vec<String>,
    is_broken: bool,
}

impl Report {
    fn parse(log: &str, is_success: bool) -> Self {
        let mut report = Self { is_broken: !is_success, ..Self::default() };
        for line in log.lines() {
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                report.inputs.push(path.to_owned());
            } else if let Some((name, figure)) = line.strip_prefix("stat::").and_then(|l| l.split_once(':')) {
                let figure = figure.trim().to_owned();
                match name {
                    "number_of_executed_units" => report.runs = figure,
                    "average_exec_per_sec" => report.runs_per_second = figure,
                    "slowest_unit_time_sec" => report.slowest = figure,
                    "peak_rss_mb" => report.memory = figure,
                    _ => {}
                }
            } else if let Some(at) = line.find("cov: ") {
                let end = line.find(" lim: ").or_else(|| line.find(" exec/s: ")).unwrap_or(line.len());
                line.get(at..end).unwrap_or(line).clone_into(&mut report.coverage);
            }
        }
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, runs_per_second, coverage, slowest, memory, inputs, is_broken } = self;
        write!(formatter, "{runs} runs, {runs_per_second}/s, {coverage}, slowest {slowest} s, {memory} MiB")?;
        write!(formatter, ", {}", if *is_broken { "BROKEN" } else { "kept" })?;
        inputs.iter().try_for_each(|path| write!(formatter, "\n{:16} {path}", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    const LOG: &str = "#2\tINITED cov: 3 ft: 3 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #9\tNEW    cov: 7 ft: 8 corp: 2/17b lim: 4 exec/s: 0 rss: 41Mb L: 16/16 MS: 1 EraseBytes-\n\
        artifact_prefix='/a/'; Test unit written to /a/crash-1\n\
        stat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     56\n\
        stat::new_units_added:          1\nstat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              41\n";

    #[test]
    fn the_report_says_what_the_fuzzer_found() {
        assert_eq!(
            Report::parse(LOG, false).to_string(),
            "1234 runs, 56/s, cov: 7 ft: 8 corp: 2/17b, slowest 0 s, 41 MiB, BROKEN\n                 /a/crash-1"
        );
    }

    #[test]
    fn nothing_is_broken_when_the_fuzzer_ends_well() {
        assert!(!Report::parse("", true).is_broken);
    }
}

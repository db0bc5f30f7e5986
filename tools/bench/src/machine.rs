//! The machine and the commit that were measured: figures are meaningless without them.

use std::{fs, process::Command, thread};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The machine, as far as the operating system describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) threads: usize,
    pub(crate) memory_mebibytes: Option<u64>,
    pub(crate) system: String,
    /// The load average of the minute before the run: work of other processes affects the figures.
    pub(crate) load_before: Option<f64>,
    pub(crate) load_after: Option<f64>,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            threads: thread::available_parallelism().map_or(1, usize::from),
            memory_mebibytes: kibibytes("/proc/meminfo", "MemTotal").map(|kibibytes| kibibytes / 1024),
            system: system(),
            load_before: load(),
            load_after: None,
        }
    }
}

impl Machine {
    /// Describes a run: its date, its commit, and the load of the machine.
    pub(crate) fn run(&self, date: &str, commit: &str) -> String {
        let load = match (self.load_before, self.load_after) {
            (Some(before), Some(after)) => format!(", load average {before} before, {after} after"),
            _ => String::new(),
        };
        format!("{date}, commit {commit}{load}")
    }
}

/// Returns the load average of the last minute.
pub(crate) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Returns the resident memory of this process, in KiB.
pub(crate) fn resident() -> Result<u64> {
    kibibytes("/proc/self/status", "VmRSS").context("memory use can be measured on Linux only")
}

/// Returns the peak of the resident memory of this process above the initial `idle` KiB, in MiB.
pub(crate) fn above(idle: u64) -> Result<f64> {
    let peak = kibibytes("/proc/self/status", "VmHWM").context("memory use can be measured on Linux only")?;
    Ok(peak.saturating_sub(idle) as f64 / 1024.0)
}

/// Returns the measured commit, marked "with changes" if the sources differ from it.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".into() };
    let is_changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    format!("{}{}", commit.trim(), if is_changed { " with changes" } else { "" })
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned()
}

fn kibibytes(file: &str, name: &str) -> Option<u64> {
    field(file, name)?.split_whitespace().next()?.parse().ok()
}

/// Returns the value of the first line `name: value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let values = text.lines().filter_map(|line| line.split_once(':'));
    values.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

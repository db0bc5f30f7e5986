//! `cargo xtask semver`: the public API of each published crate beside that of an earlier revision.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, tools, workspace};

/// Check that changes of the public API fit the version numbers
///
/// Compares each published crate with the last release, or with a revision, by cargo-semver-checks.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The revision to compare with; the last tag `v…` by default
    #[arg(long, value_name = "REVISION")]
    baseline: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let baseline = arguments.baseline.clone().map_or_else(last_release, Ok)?;
    let mut command = tools::SEMVER_CHECKS.command()?;
    command.args(["check-release", "--all-features", "--baseline-rev", &baseline]);
    // Each directory has the name of its package.
    for entry in fs::read_dir(workspace::root().join("crates"))? {
        let entry = entry?;
        // A program has no public API.
        if entry.path().join("src/lib.rs").exists() {
            command.arg("--package").arg(entry.file_name());
        }
    }
    process::check(&mut command)
}

fn last_release() -> Result<String> {
    let mut command = Command::new("git");
    command.current_dir(workspace::root()).args(["describe", "--tags", "--abbrev=0", "--match", "v*"]);
    let output = command.output().context("cannot run git")?;
    ensure!(output.status.success(), "there is no release yet: name a revision with --baseline");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

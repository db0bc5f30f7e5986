//! `cargo xtask sanitize`: the tests of what has unsafe code, with AddressSanitizer.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{process, workspace};

/// Run the tests of the one crate with unsafe code with AddressSanitizer, SQLite's C code included
///
/// That crate is a file system for SQLite, in C, which is why Miri cannot run it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Arguments for the test programs: a part of their tests' names
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["test", "--package", "es-sqlite-vfs", "--package", "es-sqlite"]);
    command.args(["--lib", "--test", "disk", "--test", "disk_faults"]);
    // With a target of its own, build scripts and macros are compiled as ever.
    command.args(["--target", &host()?]).arg("--target-dir").arg(workspace::target().join("sanitize"));
    // Sanitizers are in every compiler, and still an unstable option.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    command.env("CFLAGS", "-fsanitize=address -fno-omit-frame-pointer");
    process::check(command.arg("--").args(&arguments.arguments))
}

fn host() -> Result<String> {
    let output =
        Command::new("rustc").args(["--print", "host-tuple"]).output().context("cannot run rustc")?;
    ensure!(output.status.success(), "rustc does not tell its host");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

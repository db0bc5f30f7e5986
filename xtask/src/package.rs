//! `cargo xtask package`: the published crates as they would be uploaded.

use std::fs;

use anyhow::Result;
use clap::Args;

use crate::{process, workspace};

/// Assemble the packages of all published crates
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Also build each of them from its archive
    #[arg(long)]
    verify: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut command = workspace::cargo();
    command.args(["package", "--allow-dirty"]);
    // Each directory has the name of its package.
    for entry in fs::read_dir(workspace::root().join("crates"))? {
        command.arg("--package").arg(entry?.file_name());
    }
    if !arguments.verify {
        command.arg("--no-verify");
    }
    process::check(&mut command)
}

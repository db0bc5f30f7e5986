//! Cargo subcommands that CI uses, each at one version, installed into `target/tools`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Checks each feature by itself.
pub(crate) const HACK: Tool = Tool { package: "cargo-hack", version: "0.6.46" };
/// Checks licences, bans, sources and advisories of dependencies.
pub(crate) const DENY: Tool = Tool { package: "cargo-deny", version: "0.20.2" };

/// A package with one program of the same name, `cargo-<subcommand>`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    package: &'static str,
    version: &'static str,
}

impl Tool {
    /// The subcommand, ready for arguments; installed first if it is missing.
    pub(crate) fn command(self) -> Result<Command> {
        self.install()?;
        let mut command = workspace::cargo();
        let path = env::var_os("PATH").unwrap_or_default();
        let directories = [self.root().join("bin")].into_iter().chain(env::split_paths(&path));
        command.env("PATH", env::join_paths(directories).context("cannot extend PATH")?);
        command.arg(self.package.trim_start_matches("cargo-"));
        Ok(command)
    }

    fn install(self) -> Result<()> {
        if self.root().join("bin").join(self.package).is_file() {
            return Ok(());
        }
        let mut command = workspace::cargo();
        // Unoptimised: compiling takes far longer than all that these tools do for us.
        command.args(["install", "--debug", "--locked", self.package, "--version", self.version]);
        command.arg("--root").arg(self.root());
        process::check(&mut command)
    }

    /// One per version, so that a new version replaces the old one.
    fn root(self) -> PathBuf {
        workspace::target().join("tools").join(format!("{}-{}", self.package, self.version))
    }
}

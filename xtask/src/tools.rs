//! Cargo subcommands and other programs, each at one version, installed into `target/tools`.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Checks each feature by itself.
pub(crate) const HACK: Tool = Tool { package: "cargo-hack", version: "0.6.46" };
/// Checks licences, bans, sources and advisories of dependencies.
pub(crate) const DENY: Tool = Tool { package: "cargo-deny", version: "0.20.2" };

/// Makes a book of HTML pages from Markdown.
pub(crate) const MDBOOK: Tool = Tool { package: "mdbook", version: "0.5.4" };
/// Compiles programs for libFuzzer and runs them.
pub(crate) const FUZZ: Tool = Tool { package: "cargo-fuzz", version: "0.13.2" };
/// Changes the code to see whether a test notices.
pub(crate) const MUTANTS: Tool = Tool { package: "cargo-mutants", version: "27.1.0" };
/// Compares public APIs by the rules of semantic versioning.
pub(crate) const SEMVER_CHECKS: Tool = Tool { package: "cargo-semver-checks", version: "0.51.0" };
/// Counts the lines that tests run.
const LLVM_COV: Tool = Tool { package: "cargo-llvm-cov", version: "0.9.1" };

/// `cargo llvm-cov`, which says what to install when there are no LLVM tools, and does not do it by itself.
pub(crate) fn llvm_cov() -> Result<Command> {
    let mut command = LLVM_COV.command()?;
    command.env("CARGO_LLVM_COV_SETUP", "no");
    Ok(command)
}

/// A package with one program of the same name: `cargo-<subcommand>`, or a program by itself.
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

    /// The program, ready for arguments; installed first if it is missing.
    pub(crate) fn program(self) -> Result<Command> {
        self.install()?;
        Ok(Command::new(self.root().join("bin").join(self.package)))
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

//! The commands of the repository: `cargo xtask test | ci | fmt | lint | bench | book | coverage | faults |
//! fuzz | interop | mutants | package | readme | sanitize | semver | soak | postgres | pgbouncer`.
//!
//! People and CI run the same code. Commands that need a PostgreSQL server start one.

// A command-line program prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(unix))]
compile_error!(
    "cargo xtask runs on Unix; on Windows use the Windows Subsystem for Linux, or plain `cargo test`"
);

mod bench;
mod book;
mod chromium;
mod ci;
mod coverage;
mod faults;
mod fuzz;
mod interop;
mod lint;
mod mutants;
mod package;
mod pgbouncer;
mod postgres;
mod process;
mod python;
mod readme;
mod sanitize;
mod semver;
mod soak;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The commands of the repository
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(test::Arguments),
    Ci(ci::Arguments),
    /// Format the whole workspace
    Fmt,
    Bench(bench::Arguments),
    /// Build the guide as a book, into target/book/html
    Book,
    Coverage(coverage::Arguments),
    Faults(faults::Arguments),
    Fuzz(fuzz::Arguments),
    Interop(interop::Arguments),
    Lint(lint::Arguments),
    Mutants(mutants::Arguments),
    Package(package::Arguments),
    /// Build and run the snippets of every README in new packages
    Readme,
    Sanitize(sanitize::Arguments),
    Semver(semver::Arguments),
    Soak(soak::Arguments),
    #[command(subcommand)]
    Postgres(postgres::Command),
    #[command(subcommand)]
    Pgbouncer(pgbouncer::Command),
}

fn main() -> ExitCode {
    let outcome = process::handle_signals().and_then(|()| run(Cli::parse().command));
    // An interrupt ends whatever was running, so any error after it is only its echo.
    if let Some(signal) = process::interrupted() {
        eprintln!("xtask: interrupted");
        return ExitCode::from(128 + signal);
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Test(arguments) => test::run(&arguments),
        Command::Ci(arguments) => ci::run(&arguments),
        Command::Fmt => process::check(&mut workspace::format(&[])),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Book => book::run(),
        Command::Coverage(arguments) => coverage::run(&arguments),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::Interop(arguments) => interop::run(&arguments),
        Command::Lint(arguments) => lint::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Readme => readme::run(),
        Command::Sanitize(arguments) => sanitize::run(&arguments),
        Command::Semver(arguments) => semver::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Postgres(command) => postgres::run(command),
        Command::Pgbouncer(command) => pgbouncer::run(&command),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

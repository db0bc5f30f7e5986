//! `es`: the command-line tool for operators of event stores.
//!
//! Each command opens the databases that it is given, through the factory and its recorders, and writes its
//! results to standard output. Only two modules have SQL of their own: `catalog` reads names, counts and
//! sizes, which no recorder returns, and `sql_writer` writes events with given ids and moves positions
//! back, which no recorder does.

// A command-line program prints.
#![allow(clippy::print_stderr, reason = "errors are printed to standard error")]

mod arguments;
mod catalog;
mod color;
mod commands;
mod configuration;
mod confirmation;
mod database;
mod diagnostics;
mod digest;
mod erasure;
mod failure;
mod interchange;
mod lag;
mod output;
mod progress;
mod record;
mod salvage;
mod schema;
mod sql_writer;
mod state;
mod target;
mod template;
#[cfg(feature = "ui")]
mod ui;

use std::process::ExitCode;

use clap::{ColorChoice, CommandFactory, FromArgMatches};

use crate::{
    arguments::{Arguments, Command},
    color::Color,
    failure::Failure,
};

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    forbid_core_dumps();
    // The color of the help follows `--color`, which is not parsed yet, and `NO_COLOR`.
    let is_plain = std::env::args_os().any(|argument| argument == "--color=never");
    let color = if is_plain { ColorChoice::Never } else { ColorChoice::Auto };
    let matches = Arguments::command().color(color).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let color = Color::new(arguments.color);
    // A screen shows warnings in its own way.
    let is_screen = matches!(arguments.command, Command::Top(_));
    diagnostics::start(arguments.verbose, color.is_on_stderr() && !is_screen);
    match run(arguments, color) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(color);
            failure.exit.into()
        }
    }
}

fn run(arguments: Arguments, color: Color) -> Result<failure::Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the threads of the program: {error}")))?;
    runtime.block_on(commands::run(arguments, color))
}

/// Keeps keys and decrypted states out of core dumps. If that is impossible, the command runs nevertheless.
#[cfg(target_os = "linux")]
fn forbid_core_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

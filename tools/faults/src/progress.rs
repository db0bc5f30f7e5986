//! A status line on the standard error, if that is a terminal.
#![expect(clippy::print_stderr, reason = "progress of a run that takes minutes is shown on the terminal")]

use std::{
    fmt,
    io::{self, IsTerminal},
};

/// Replaces the status line; clears it if the message is empty.
pub fn show(message: fmt::Arguments<'_>) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{message}");
    }
}

//! The confirmation of commands that write.

use std::io::{self, IsTerminal};

use crate::failure::Failure;

/// Asks on a terminal; without one, `--yes` is required.
#[allow(clippy::print_stderr, reason = "a question to the user")]
pub(crate) fn confirm(question: &str, is_confirmed: bool) -> Result<(), Failure> {
    if is_confirmed {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("not confirmed: {question}")).with_hint("pass --yes"));
    }
    eprint!("{question}? [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new("cancelled")),
    }
}

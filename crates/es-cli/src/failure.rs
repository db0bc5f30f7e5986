//! Errors of commands, with a hint and an exit code.

use std::{error::Error, io, iter::successors, process::ExitCode};

use es_core::{ErrorKind, PersistenceError};

use crate::color::Color;

/// The exit codes; the help and the book list them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    Failed = 1,
    /// An argument, a setting or a table is wrong. The same code as for a command line that cannot be parsed.
    Usage = 2,
    /// The database cannot be reached or opened.
    Unavailable = 3,
    /// There are findings: states that cannot be decoded, consumers that are too far behind.
    Findings = 4,
    /// The aggregate or the consumer does not exist.
    NotFound = 5,
}

/// The list of exit codes for the help.
pub(crate) const EXIT_CODES: &str = "Exit codes:
  0  success
  1  the command failed
  2  an argument, a setting or a table is wrong
  3  the database cannot be reached or opened
  4  there are findings: of verify, a state that cannot be decoded, or a consumer that is too far behind
  5  the aggregate, the consumer or the projection does not exist";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The error of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unavailable, ..Self::new(message) }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { exit: Exit::NotFound, ..Self::new(message) }
    }

    /// Sets the hint, unless the failure has one.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    pub(crate) fn findings(message: impl Into<String>) -> Self {
        Self { exit: Exit::Findings, ..Self::new(message) }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether the reader of a pipe has ended.
    pub(crate) fn is_output(&self) -> bool {
        self.message.is_empty()
    }

    /// Prints the failure; a closed pipe is not reported.
    pub(crate) fn print(&self, color: Color) {
        if self.is_output() {
            return;
        }
        eprintln!("{} {}", color.error("error:"), self.message);
        if let Some(hint) = &self.hint {
            eprintln!(" {} {hint}", color.hint("hint:"));
        }
    }
}

impl From<PersistenceError> for Failure {
    fn from(error: PersistenceError) -> Self {
        let exit = match error.kind() {
            ErrorKind::Operational => Exit::Unavailable,
            ErrorKind::Interface | ErrorKind::Programming | ErrorKind::NotSupported => Exit::Usage,
            _ => Exit::Failed,
        };
        let message = chain(&error);
        let hint = hint(&message);
        Self { exit, message, hint: hint.map(str::to_owned) }
    }
}

impl From<io::Error> for Failure {
    /// Converts an error of writing the output. If the reader of a pipe has ended, so does the command, with
    /// success: `es log | head`.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: Exit::Success, message: String::new(), hint: None },
            _ => Self::new(format!("cannot write the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

/// Returns the messages of an error and its sources, each once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut kind) = (String::new(), String::new());
    for error in successors(Some(error), |error| (*error).source()) {
        let message = error.to_string();
        if let Some(error) = error.downcast_ref::<PersistenceError>() {
            kind = error.kind().to_string();
        }
        // The notes of a transient failure and of a kind are for programs.
        if message == "the failure is transient" || message == kind || text.contains(&message) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&message);
    }
    text
}

/// Returns the advice for a message of the library, where there is any.
fn hint(message: &str) -> Option<&'static str> {
    if message.contains("table ") && message.contains("does not exist") {
        return Some("name the application with --application: its tables have that prefix");
    }
    let hints = [
        (
            "POSTGRES_PASSWORD",
            "set it in the environment or in a `.env` file; any value if the server requires none",
        ),
        ("no such table", "is this the database of an event store?"),
        ("unable to open database file", "check the path"),
        ("is not a database", "is the file encrypted, or not of SQLite?"),
        ("connecting to", "check that the server runs, and its host and port"),
    ];
    hints.into_iter().find(|(part, _)| message.contains(part)).map(|(_, hint)| hint)
}

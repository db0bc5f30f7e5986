//! Colors, for standard output and standard error.

use std::io::{self, IsTerminal};

use clap::ValueEnum;

/// The use of colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorOption {
    #[default]
    Auto,
    Always,
    Never,
}

/// Paints texts, on standard output and on standard error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Color {
    stdout: bool,
    stderr: bool,
}

impl Color {
    pub(crate) fn new(option: ColorOption) -> Self {
        let is_wanted = |is_terminal: bool| match option {
            ColorOption::Always => true,
            ColorOption::Never => false,
            ColorOption::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        Self { stdout: is_wanted(io::stdout().is_terminal()), stderr: is_wanted(io::stderr().is_terminal()) }
    }

    pub(crate) fn is_on_stdout(self) -> bool {
        self.stdout
    }

    pub(crate) fn is_on_stderr(self) -> bool {
        self.stderr
    }

    pub(crate) fn error(self, text: &str) -> String {
        painted(self.stderr, "1;31", text)
    }

    pub(crate) fn hint(self, text: &str) -> String {
        painted(self.stderr, "1", text)
    }

    /// A thing of minor importance.
    pub(crate) fn dim(self, text: &str) -> String {
        painted(self.stdout, "2", text)
    }

    pub(crate) fn topic(self, text: &str) -> String {
        painted(self.stdout, "36", text)
    }

    pub(crate) fn heading(self, text: &str) -> String {
        painted(self.stdout, "1", text)
    }

    /// A finding.
    pub(crate) fn bad(self, text: &str) -> String {
        painted(self.stdout, "31", text)
    }
}

/// Returns the text between the control sequences of a style.
fn painted(is_colored: bool, style: &str, text: &str) -> String {
    if is_colored { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
}

//! Standard output, and colors.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;

/// The use of colors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorOption {
    #[default]
    Auto,
    Always,
    Never,
}

/// The format of results that are few lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
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

/// Standard output, buffered. It is flushed when it is dropped, and by [`flush`](Self::flush), which reports
/// errors.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.0, value)?;
        Ok(self.0.write_all(b"\n")?)
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes())?;
        Ok(self.0.write_all(b"\n")?)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

/// A table for people: columns are aligned, numbers to the right.
pub(crate) fn table(
    output: &mut Output,
    color: Color,
    heads: &[&str],
    rows: &[Vec<Cell>],
) -> Result<(), Failure> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text().chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    let is_number = |column: usize| rows.iter().any(|row| matches!(row.get(column), Some(Cell::Number(_))));
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (column, text) in cells.into_iter().enumerate() {
            let padding = " ".repeat(widths[column].saturating_sub(text.chars().count()));
            let padded = if is_number(column) { padding + text } else { text.to_owned() + &padding };
            line.push_str(&padded);
            line.push_str("  ");
        }
        line.trim_end().to_owned()
    };
    output.line(&color.heading(&line(heads.to_vec())))?;
    rows.iter().try_for_each(|row| output.line(&line(row.iter().map(Cell::text).collect())))
}

/// A cell of a [`table`].
pub(crate) enum Cell {
    Text(String),
    Number(String),
}

impl Cell {
    pub(crate) fn text_of(text: &str) -> Self {
        Self::Text(printable(text))
    }

    pub(crate) fn number(number: impl ToString) -> Self {
        Self::Number(number.to_string())
    }

    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
        }
    }
}

/// Returns a stored text without control characters, which could change the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = if character.is_control() { Some(character.escape_default()) } else { None };
            let plain = if escaped.is_none() { Some(character) } else { None };
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// Returns a size with a unit.
pub(crate) fn size(bytes: i64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

//! Standard output: lines, JSON and tables.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::{color::Color, failure::Failure};

/// The format of results that are few lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
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

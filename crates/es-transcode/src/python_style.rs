//! How the Python library spells JSON: compact, and floats as Python's `repr`.

use std::io;

use serde_json::ser::{CompactFormatter, Formatter};

use crate::json_text::MAX_DEPTH;

/// Counts the nesting as well: what is written must not be deeper than what can be read.
#[derive(Default)]
pub(crate) struct PythonStyle {
    depth: usize,
}

impl PythonStyle {
    fn descend(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(io::Error::other(format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn ascend(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

impl Formatter for PythonStyle {
    fn write_f64<W: io::Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Within these bounds Python writes no exponent, and spells floats as serde_json does.
        if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
            return CompactFormatter.write_f64(writer, value);
        }
        let scientific = format!("{value:e}");
        match scientific.split_once('e').map(|(digits, exponent)| (digits, exponent.parse::<i32>())) {
            Some((digits, Ok(exponent))) => write!(writer, "{digits}e{exponent:+03}"),
            _ => writer.write_all(scientific.as_bytes()),
        }
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.descend()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.ascend();
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.descend()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.ascend();
        CompactFormatter.end_object(writer)
    }
}

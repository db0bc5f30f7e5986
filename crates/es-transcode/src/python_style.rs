//! The JSON style of the Python library: compact, and floats as Python's `repr`.

use std::{io, rc::Rc};

use serde::Serialize;
use serde_json::{
    Serializer,
    ser::{CompactFormatter, Formatter},
};

use crate::{finite_floats::FiniteFloats, json_text::MAX_DEPTH, scope::Scope};

/// Appends the JSON of a value, or a part of it when that fails.
pub(crate) fn write<V: Serialize + ?Sized>(
    value: &V,
    scope: &Rc<Scope>,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let style = PythonStyle { scope: Rc::clone(scope) };
    value.serialize(FiniteFloats(&mut Serializer::with_formatter(out, style)))
}

/// Also counts the depth, which must not exceed that of the reader.
struct PythonStyle {
    scope: Rc<Scope>,
}

impl PythonStyle {
    fn descend(&self) -> io::Result<()> {
        let depth = self.scope.depth.get() + 1;
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("values are nested deeper than {MAX_DEPTH} levels")));
        }
        self.scope.depth.set(depth);
        Ok(())
    }

    fn ascend(&self) {
        let depth = &self.scope.depth;
        depth.set(depth.get().saturating_sub(1));
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

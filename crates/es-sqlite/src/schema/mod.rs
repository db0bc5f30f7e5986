//! Tables, their statements, and rows.

mod rows;
pub(crate) mod tables;

pub(crate) use rows::{RowReader, Topics, with_stored_id};
pub(crate) use tables::EventTable;

//! Tables, the statements on them, and rows.

pub(crate) mod rows;
pub(crate) mod tables;

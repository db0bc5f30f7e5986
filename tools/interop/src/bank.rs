//! The bank, as the example `read_python_database` defines it beside `testdata/python/bank.py`.

#[path = "../../../crates/es-persistence/examples/read_python_database/bank.rs"]
mod defined;

pub(crate) use defined::*;

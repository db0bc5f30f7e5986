//! The bank, as the example `read_python_database` defines it beside `testdata/python/bank.py`.

#[path = "../../../crates/es-persistence/examples/read_python_database/bank.rs"]
#[allow(dead_code, reason = "the example shows more of a bank than is needed here")]
mod defined;

pub(crate) use defined::*;

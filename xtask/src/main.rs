//! The one way to run things here: test, ci, bench, postgres.

fn main() {}

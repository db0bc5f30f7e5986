//! The failure of concurrent writes of a position.

use crate::failure::Failure;

/// The failure of a position that another process has moved.
pub(super) fn moved(consumer: &str, expected: i64, recorded: i64) -> Failure {
    Failure::new(format!(
        "the position of {consumer} is {recorded}, not {expected}: another process has moved it"
    ))
}

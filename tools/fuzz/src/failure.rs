//! The error of the command-line tool, as the reader of exports needs it.

#[derive(Debug)]
pub(crate) struct Failure;

impl Failure {
    pub(crate) fn new(_message: impl Into<String>) -> Self {
        Self
    }
}

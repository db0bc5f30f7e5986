//! The error of a statement.

use std::fmt;

use es_core::HandlerError;

/// The error of a statement, which names its text.
#[derive(thiserror::Error)]
#[error("the statement {text:?} failed")]
pub(crate) struct StatementError {
    text: String,
    source: HandlerError,
}

impl StatementError {
    pub(crate) fn new(text: &str, source: HandlerError) -> Self {
        Self { text: text.to_owned(), source }
    }
}

impl fmt::Debug for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The `Debug` of the driver's error shows the values of the row.
        f.debug_struct("StatementError")
            .field("text", &self.text)
            .field("source", &self.source.to_string())
            .finish()
    }
}

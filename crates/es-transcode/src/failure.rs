//! The error of a transcoding, kept while serde unwinds with its text.

use std::cell::RefCell;

use es_core::PersistenceError;

use crate::json_error::JsonError;

/// Errors pass through serde as text; this keeps the last one, and with it the kind.
#[derive(Default)]
pub(crate) struct Failure(RefCell<Option<PersistenceError>>);

impl Failure {
    /// Keeps an error, and returns its text, which passes through serde instead.
    pub(crate) fn keep(&self, error: PersistenceError) -> String {
        let text = error.to_string();
        *self.0.borrow_mut() = Some(error);
        text
    }

    /// Returns the kept error.
    pub(crate) fn take(&self) -> Option<PersistenceError> {
        self.0.take()
    }

    /// Returns the error of a call: the kept one if `error` of serde contains its text, or else one with this
    /// message.
    ///
    /// The kept error may be from an earlier attempt: an untagged enum tries one variant after the other.
    pub(crate) fn error(&self, error: serde_json::Error, message: &str) -> PersistenceError {
        let kept = self.take().filter(|kept| error.to_string().contains(&kept.to_string()));
        kept.unwrap_or_else(|| PersistenceError::data(message).with_source(JsonError::from(error)))
    }
}

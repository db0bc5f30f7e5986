//! The error of a transcoding, kept while serde unwinds with its text.

use std::cell::RefCell;

use es_core::PersistenceError;

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

    /// Returns the kept error if `error` of serde contains its text.
    ///
    /// It may be from an earlier attempt: an untagged enum tries one variant after the other.
    pub(crate) fn take_if_in(&self, error: &serde_json::Error) -> Option<PersistenceError> {
        self.take().filter(|kept| error.to_string().contains(&kept.to_string()))
    }
}

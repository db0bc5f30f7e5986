//! The distances of consumers to the end of a log.

use serde::Serialize;

use crate::catalog::Tracker;

/// The position of a consumer, and its distance to the end of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Lag<'a> {
    #[serde(flatten)]
    pub(crate) tracker: &'a Tracker,
    pub(crate) head: i64,
    /// Negative if the position is ahead of the log.
    pub(crate) lag: i64,
}

impl<'a> Lag<'a> {
    pub(crate) fn new(tracker: &'a Tracker, head: i64) -> Self {
        Self { tracker, head, lag: head.saturating_sub(tracker.position) }
    }

    /// Returns whether the position is one that the log does not have, or has lost.
    pub(crate) fn is_ahead(&self) -> bool {
        self.lag < 0
    }
}

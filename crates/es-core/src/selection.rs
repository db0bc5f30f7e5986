//! Selections of events and of notifications.

use std::ops::{Bound, RangeBounds};

use crate::{Notification, StoredEvent, Topic};

/// A selection of the events of an aggregate: by default all of them, in version order.
///
/// Every range of versions converts into one.
///
/// ```
/// use es_core::EventRange;
///
/// // The newest event up to version 10, such as a snapshot.
/// let newest = EventRange::all().up_to(10).desc().limit(1);
/// // The events after that snapshot.
/// assert_eq!(EventRange::from(11..), EventRange::all().after(10));
/// # let _ = newest;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EventRange {
    /// Only versions greater than this.
    pub gt: Option<i64>,
    /// Only versions less than or equal to this.
    pub lte: Option<i64>,
    /// Highest version first.
    pub desc: bool,
    /// The maximum of events.
    pub limit: Option<usize>,
    /// The total size of states after which the selection may end early, with the event that reaches it;
    /// see [`is_filled_by`](Self::is_filled_by). Not set by default.
    pub max_bytes: Option<usize>,
}

impl EventRange {
    /// All events, lowest version first.
    pub const fn all() -> Self {
        Self { gt: None, lte: None, desc: false, limit: None, max_bytes: None }
    }

    /// Only versions greater than `version`.
    #[must_use]
    pub const fn gt(mut self, version: i64) -> Self {
        self.gt = Some(version);
        self
    }

    /// The same as [`gt`](Self::gt).
    #[must_use]
    pub const fn after(self, version: i64) -> Self {
        self.gt(version)
    }

    /// Only versions less than or equal to `version`.
    #[must_use]
    pub const fn lte(mut self, version: i64) -> Self {
        self.lte = Some(version);
        self
    }

    /// The same as [`lte`](Self::lte).
    #[must_use]
    pub const fn up_to(self, version: i64) -> Self {
        self.lte(version)
    }

    /// Highest version first.
    #[must_use]
    pub const fn desc(mut self) -> Self {
        self.desc = true;
        self
    }

    /// At most `limit` events.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Allows the selection to end early, with at least one event, when the states have `bytes` together.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Returns whether more events may follow these in the range: their number is `limit`, or their states
    /// have `max_bytes` together. Otherwise they are all.
    pub fn is_filled_by(&self, events: &[StoredEvent]) -> bool {
        is_full(events.iter(), self.limit.unwrap_or(usize::MAX), self.max_bytes)
    }
}

/// From the lowest version to the highest, without a limit.
impl<R: RangeBounds<i64>> From<R> for EventRange {
    fn from(versions: R) -> Self {
        let gt = match versions.start_bound() {
            // Before the lowest version there is none to exclude.
            Bound::Included(&first) => first.checked_sub(1),
            Bound::Excluded(&before) => Some(before),
            Bound::Unbounded => None,
        };
        let lte = match versions.end_bound() {
            Bound::Included(&last) => Some(last),
            Bound::Excluded(&after) => match after.checked_sub(1) {
                Some(last) => Some(last),
                None => return Self::all().limit(0),
            },
            Bound::Unbounded => None,
        };
        Self { gt, lte, ..Self::all() }
    }
}

/// A selection of notifications, always ordered by id.
///
/// ```
/// use es_core::{NotificationSelection, Topic};
///
/// let next_page = NotificationSelection::new(100).after(200);
/// let openings = NotificationSelection::new(100).topics([Topic::from_static("bank:Account.Opened")]);
/// # let _ = (next_page, openings);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NotificationSelection {
    /// The id to start at; by default the beginning.
    pub start: Option<i64>,
    /// True if the notification with the id `start` is selected.
    pub inclusive_of_start: bool,
    /// The last id to select.
    pub stop: Option<i64>,
    /// Only these topics; all topics if empty.
    pub topics: Vec<Topic>,
    /// The maximum of notifications.
    pub limit: usize,
    /// The total size of states after which the page may end early, with the event that reaches it; see
    /// [`is_filled_by`](Self::is_filled_by). Not set by default.
    pub max_bytes: Option<usize>,
}

impl NotificationSelection {
    /// The first `limit` notifications.
    pub const fn new(limit: usize) -> Self {
        Self { start: None, inclusive_of_start: true, stop: None, topics: Vec::new(), limit, max_bytes: None }
    }

    /// Only ids greater than or equal to `id`.
    #[must_use]
    pub const fn start(mut self, id: i64) -> Self {
        self.start = Some(id);
        self.inclusive_of_start = true;
        self
    }

    /// Only ids greater than `id`.
    #[must_use]
    pub const fn after(mut self, id: i64) -> Self {
        self.start = Some(id);
        self.inclusive_of_start = false;
        self
    }

    /// Only ids less than or equal to `id`.
    #[must_use]
    pub const fn stop(mut self, id: i64) -> Self {
        self.stop = Some(id);
        self
    }

    /// Only these topics.
    #[must_use]
    pub fn topics(mut self, topics: impl AsRef<[Topic]>) -> Self {
        self.topics = topics.as_ref().to_vec();
        self
    }

    /// Allows the page to end early, with at least one notification, when the states have `bytes` together.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Returns whether more notifications may follow this page: it has `limit` notifications, or their
    /// states have `max_bytes` together. Otherwise it is the whole rest of the selection.
    pub fn is_filled_by(&self, page: &[Notification]) -> bool {
        is_full(page.iter().map(|notification| &notification.event), self.limit, self.max_bytes)
    }

    /// Returns the lowest id that can be selected; `None` after the highest `i64`.
    pub fn first_id(&self) -> Option<i64> {
        match self.start {
            None => Some(i64::MIN),
            Some(start) if self.inclusive_of_start => Some(start),
            Some(start) => start.checked_add(1),
        }
    }

    /// Returns whether `id` is between `start` and `stop`.
    pub fn contains(&self, id: i64) -> bool {
        self.first_id().is_some_and(|first| id >= first) && self.stop.is_none_or(|stop| id <= stop)
    }
}

fn is_full<'e>(
    events: impl ExactSizeIterator<Item = &'e StoredEvent>,
    limit: usize,
    max_bytes: Option<usize>,
) -> bool {
    events.len() >= limit || events.len() > 0 && max_bytes.is_some_and(|max| state_bytes(events) >= max)
}

/// Returns the total size of the states of events.
pub(crate) fn state_bytes<'e>(events: impl Iterator<Item = &'e StoredEvent>) -> usize {
    events.fold(0, |bytes, event| bytes.saturating_add(event.state.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_versions_convert() {
        let all = EventRange::all();
        assert_eq!(EventRange::from(..), all);
        assert_eq!(EventRange::from(3..), all.gt(2));
        assert_eq!(EventRange::from(..7), all.lte(6));
        assert_eq!(EventRange::from(3..=7), all.gt(2).lte(7));
        assert_eq!(EventRange::from((Bound::Excluded(3), Bound::Excluded(7))), all.after(3).up_to(6));
        assert_eq!(EventRange::from(i64::MIN..), all);
        assert_eq!(EventRange::from(..i64::MIN), all.limit(0), "no version is lower");
    }
}

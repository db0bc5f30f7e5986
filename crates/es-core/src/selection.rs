//! Which events, which notifications.

use crate::{Notification, StoredEvent, Topic};

/// Which events of an aggregate to select; all of them, in version order, by default.
///
/// ```
/// use es_core::EventRange;
///
/// // The newest event up to version 10, such as a snapshot.
/// let newest = EventRange::all().lte(10).desc().limit(1);
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
    /// At most so many events.
    pub limit: Option<usize>,
    /// Lets the selection end early, after the event with which the states have so many bytes together;
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

    /// Only versions less than or equal to `version`.
    #[must_use]
    pub const fn lte(mut self, version: i64) -> Self {
        self.lte = Some(version);
        self
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

    /// Lets the selection end early, with at least one event, when the states have `bytes` together.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Whether more events may follow these in the range: they are as many as `limit`, or their states
    /// have `max_bytes` together. Otherwise they are all.
    pub fn is_filled_by(&self, events: &[StoredEvent]) -> bool {
        is_full(events.iter(), self.limit.unwrap_or(usize::MAX), self.max_bytes)
    }
}

/// Which notifications to select, always in the order of their ids.
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
    /// Where to start; from the beginning when absent.
    pub start: Option<i64>,
    /// Whether a notification whose id is `start` is selected.
    pub inclusive_of_start: bool,
    /// The last id to select.
    pub stop: Option<i64>,
    /// Only these topics; all topics when empty.
    pub topics: Vec<Topic>,
    /// At most so many notifications.
    pub limit: usize,
    /// Lets the page end early, after the event with which the states have so many bytes together; see
    /// [`is_filled_by`](Self::is_filled_by). Not set by default.
    pub max_bytes: Option<usize>,
}

impl NotificationSelection {
    /// The first `limit` notifications.
    pub const fn new(limit: usize) -> Self {
        Self { start: None, inclusive_of_start: true, stop: None, topics: Vec::new(), limit, max_bytes: None }
    }

    /// Ids from `id` on, `id` included.
    #[must_use]
    pub const fn start(mut self, id: i64) -> Self {
        self.start = Some(id);
        self.inclusive_of_start = true;
        self
    }

    /// Ids greater than `id`.
    #[must_use]
    pub const fn after(mut self, id: i64) -> Self {
        self.start = Some(id);
        self.inclusive_of_start = false;
        self
    }

    /// Ids up to `id`, `id` included.
    #[must_use]
    pub const fn stop(mut self, id: i64) -> Self {
        self.stop = Some(id);
        self
    }

    /// Only these topics.
    #[must_use]
    pub fn topics(mut self, topics: impl IntoIterator<Item = Topic>) -> Self {
        self.topics = topics.into_iter().collect();
        self
    }

    /// Lets the page end early, with at least one notification, when the states have `bytes` together.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Whether more notifications may follow this page: it has `limit` notifications, or their states
    /// have `max_bytes` together. Otherwise the page has all of the selection.
    pub fn is_filled_by(&self, page: &[Notification]) -> bool {
        is_full(page.iter().map(|notification| &notification.event), self.limit, self.max_bytes)
    }

    /// Whether `id` lies within `start` and `stop`.
    pub fn contains(&self, id: i64) -> bool {
        let started = match self.start {
            None => true,
            Some(start) if self.inclusive_of_start => id >= start,
            Some(start) => id > start,
        };
        started && self.stop.is_none_or(|stop| id <= stop)
    }
}

fn is_full<'e>(
    events: impl ExactSizeIterator<Item = &'e StoredEvent>,
    limit: usize,
    max_bytes: Option<usize>,
) -> bool {
    events.len() >= limit || events.len() > 0 && max_bytes.is_some_and(|max| state_bytes(events) >= max)
}

/// How many bytes the states of events have together.
pub(crate) fn state_bytes<'e>(events: impl Iterator<Item = &'e StoredEvent>) -> usize {
    events.fold(0, |bytes, event| bytes.saturating_add(event.state.len()))
}

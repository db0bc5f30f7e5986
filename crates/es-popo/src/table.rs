//! The shared state of the recorders of one table: events in their total order, indexed by aggregate,
//! tracking positions, and the signals for waiters.

use std::{collections::HashMap, fmt, ops::Range, sync::RwLock};

use es_core::{
    Conflict, EventRange, Notification, NotificationSelection, PersistenceError, SegmentChange, Segments,
    Signal, StoredEvent, Topic, Tracking, uuid::Uuid,
};

use crate::{log::Log, segments, versions::Versions};

pub(crate) struct Table {
    /// `None` after the datastore is closed.
    contents: RwLock<Option<Contents>>,
    pub(crate) commits: Signal,
    pub(crate) positions: Signal,
}

#[derive(Default)]
struct Contents {
    log: Log,
    aggregates: HashMap<Uuid, Versions>,
    positions: HashMap<String, i64>,
    /// The segments of partitioned consumers, by consumer; their positions are above.
    segments: HashMap<String, Segments>,
}

impl Table {
    pub(crate) fn new() -> Self {
        let contents = RwLock::new(Some(Contents::default()));
        Self { contents, commits: Signal::new(), positions: Signal::new() }
    }

    /// Records all or nothing; returns the notification ids.
    pub(crate) fn insert(
        &self,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Result<Range<i64>, PersistenceError> {
        self.insert_with(events, tracking, || {})
    }

    /// The same, with another effect in the same critical section.
    pub(crate) fn insert_with(
        &self,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
        effect: impl FnOnce(),
    ) -> Result<Range<i64>, PersistenceError> {
        let ids = self.write(|contents| {
            StoredEvent::verify_unique_versions(&events)?;
            if let Some(tracking) = &tracking {
                tracking.validate(contents.positions.get(tracking.application_name()).copied())?;
            }
            let ids = contents.insert_events(events)?;
            if let Some(tracking) = &tracking {
                contents.insert_tracking(tracking);
            }
            effect();
            Ok(ids)
        })?;
        self.wake(&ids, tracking.as_ref());
        Ok(ids)
    }

    fn wake(&self, ids: &Range<i64>, tracking: Option<&Tracking>) {
        if let Some(tracking) = tracking {
            self.positions.wake([tracking.application_name()]);
        }
        if ids.is_empty() || !self.commits.has_listeners() {
            return;
        }
        // If it is closed by now, its listeners are already notified.
        if let Ok(topics) = self.read(|contents| contents.topics(ids)) {
            self.commits.wake(topics.iter().map(Topic::as_str));
        }
    }

    pub(crate) fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.read(|contents| contents.select_events(originator_id, &range))
    }

    /// Takes the lock once per segment: a long read blocks no writer. Events that are appended after
    /// it began are excluded, so that the result is consistent.
    pub(crate) fn select_notifications(
        &self,
        selection: &NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        let mut wanted = self.read(|contents| wanted_positions(selection, contents.log.len()))?;
        let mut selected = Vec::new();
        if selection.topics.is_empty() {
            wanted.end = wanted.end.min(wanted.start.saturating_add(selection.limit));
            selected.reserve_exact(wanted.len());
        }
        while !wanted.is_empty() && selected.len() < selection.limit {
            let room = selection.limit - selected.len();
            wanted.start = self.read(|contents| {
                let run = contents.log.run(wanted.start, wanted.end);
                let matching = (wanted.start..)
                    .zip(run)
                    .filter(|(_, event)| {
                        selection.topics.is_empty() || selection.topics.contains(&event.topic)
                    })
                    .map(|(position, event)| Notification { id: id_at(position), event: event.clone() });
                selected.extend(matching.take(room));
                wanted.start + run.len()
            })?;
        }
        Ok(selected)
    }

    pub(crate) fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        let length = self.read(|contents| contents.log.len())?;
        Ok(length.checked_sub(1).map(id_at))
    }

    pub(crate) fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.read(|contents| contents.positions.get(application_name).copied())
    }

    pub(crate) fn segments(&self, consumer_name: &str) -> Result<Segments, PersistenceError> {
        self.read(|contents| segments::load(&contents.segments, &contents.positions, consumer_name))
    }

    pub(crate) fn change_segments(
        &self,
        consumer_name: &str,
        change: &SegmentChange,
    ) -> Result<Segments, PersistenceError> {
        self.write(|contents| {
            segments::change(&mut contents.segments, &mut contents.positions, consumer_name, change)
        })
    }

    /// Closes all recorders, and drops the contents.
    pub(crate) fn close(&self) -> Result<(), PersistenceError> {
        // First: subscriptions end in order, without an error of a closed recorder.
        self.commits.close();
        self.positions.close();
        // Taken out under the lock, dropped after it.
        let contents = self.contents.write().map_err(|_| poisoned())?.take();
        drop(contents);
        Ok(())
    }

    fn read<T>(&self, read: impl FnOnce(&Contents) -> T) -> Result<T, PersistenceError> {
        let contents = self.contents.read().map_err(|_| poisoned())?;
        contents.as_ref().map(read).ok_or_else(closed)
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&mut Contents) -> Result<T, PersistenceError>,
    ) -> Result<T, PersistenceError> {
        let mut contents = self.contents.write().map_err(|_| poisoned())?;
        contents.as_mut().ok_or_else(closed).and_then(write)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.read(|contents| contents.log.len());
        f.debug_struct("Table").field("events", &events).finish_non_exhaustive()
    }
}

impl Contents {
    fn insert_tracking(&mut self, tracking: &Tracking) {
        if let Some(recorded) = self.positions.get_mut(tracking.application_name()) {
            *recorded = tracking.notification_id();
            return;
        }
        self.positions.insert(tracking.application_name().to_owned(), tracking.notification_id());
    }

    /// Claims the versions first: a conflict gives back those claimed before it, and the log never
    /// contains rejected events.
    fn insert_events(&mut self, events: Vec<StoredEvent>) -> Result<Range<i64>, Conflict> {
        let first = self.log.len();
        for (claimed, event) in events.iter().enumerate() {
            let versions = self.aggregates.entry(event.originator_id).or_default();
            if !versions.insert(event.originator_version, first + claimed) {
                self.give_back(events.iter().take(claimed));
                return Err(event.conflict());
            }
        }
        let ids = id_at(first)..id_at(first + events.len());
        for event in events {
            self.log.push(event);
        }
        Ok(ids)
    }

    fn give_back<'a>(&mut self, claimed: impl Iterator<Item = &'a StoredEvent>) {
        for event in claimed {
            let Some(versions) = self.aggregates.get_mut(&event.originator_id) else {
                continue;
            };
            versions.remove(event.originator_version);
            if versions.is_empty() {
                self.aggregates.remove(&event.originator_id);
            }
        }
    }

    fn topics(&self, ids: &Range<i64>) -> Vec<Topic> {
        let events = ids.clone().filter_map(|id| self.log.get(position_of(id)?));
        events.map(|event| event.topic.clone()).collect()
    }

    fn select_events(&self, originator_id: Uuid, range: &EventRange) -> Vec<StoredEvent> {
        let Some(versions) = self.aggregates.get(&originator_id) else {
            return Vec::new();
        };
        let entries = versions.within(range);
        let limit = range.limit.unwrap_or(usize::MAX).min(entries.len());
        let events = entries.iter().filter_map(|entry| self.log.get(entry.position));
        let mut selected = Vec::with_capacity(limit);
        if range.desc {
            selected.extend(events.rev().take(limit).cloned());
        } else {
            selected.extend(events.take(limit).cloned());
        }
        selected
    }
}

/// The positions in a log of `length` events whose ids lie within `start` and `stop`.
fn wanted_positions(selection: &NotificationSelection, length: usize) -> Range<usize> {
    let Some(first_id) = selection.first_id() else { return length..length };
    let last_id = selection.stop.unwrap_or(i64::MAX);
    let positions_before = |id: i64| usize::try_from(id).unwrap_or(0).min(length);
    positions_before(first_id.saturating_sub(1))..positions_before(last_id)
}

/// The id of the event at a position: ids count from 1. No vector is as long as `i64::MAX`.
fn id_at(position: usize) -> i64 {
    position as i64 + 1
}

fn position_of(id: i64) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

pub(crate) fn closed() -> PersistenceError {
    PersistenceError::interface("the recorder is closed")
}

/// Nothing here panics under the lock; if it ever did, a batch might be half recorded.
fn poisoned() -> PersistenceError {
    PersistenceError::internal("a panic interrupted a writer of the recorder")
}

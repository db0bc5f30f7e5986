//! The expected results of a recorder, computed in the simplest way.

use std::collections::BTreeMap;

use es_core::{
    Conflict, ErrorKind, EventRange, Notification, NotificationSelection, PersistenceError, StoredEvent,
    Tracking, uuid::Uuid,
};

#[derive(Debug, Default)]
pub(super) struct Model {
    events: BTreeMap<(Uuid, i64), StoredEvent>,
    /// In the order of insertion. Ids are the recorder's choice, within the rules.
    pub(super) notifications: Vec<Notification>,
    positions: BTreeMap<String, i64>,
}

impl Model {
    /// Compares the outcome of an insertion with the model, and applies it if it succeeded.
    pub(super) fn inserted(
        &mut self,
        events: &[StoredEvent],
        tracking: Option<&Tracking>,
        outcome: Result<Vec<i64>, PersistenceError>,
        gives_ids: bool,
    ) {
        let conflicts = self.conflicts(events, tracking);
        let repeats = StoredEvent::verify_unique_versions(events);
        let ids = match outcome {
            Err(error) if repeats.is_err() => {
                assert_eq!(error.kind(), ErrorKind::Programming, "{error:?}");
                assert!(!error.is_conflict(), "{error:?}");
                return;
            }
            Err(error) => {
                let named = error.conflict().unwrap_or_else(|| panic!("inserting failed: {error:?}"));
                assert!(conflicts.contains(named), "{named:?} collided, and should not: {conflicts:?}");
                return;
            }
            Ok(ids) => ids,
        };
        assert!(repeats.is_ok(), "inserting succeeded in spite of {repeats:?}");
        assert!(conflicts.is_empty(), "inserting succeeded in spite of {conflicts:?}");
        assert_eq!(ids.len(), if gives_ids { events.len() } else { 0 });
        for event in events {
            self.events.insert((event.originator_id, event.originator_version), event.clone());
        }
        for (id, event) in ids.into_iter().zip(events) {
            let last = self.notifications.last().map_or(0, |last| last.id);
            assert!(id > last, "id {id} follows id {last}");
            self.notifications.push(Notification { id, event: event.clone() });
        }
        if let Some(tracking) = tracking {
            self.positions.insert(tracking.application_name().to_owned(), tracking.notification_id());
        }
    }

    /// Returns all conflicts; a recorder names any one of them.
    fn conflicts(&self, events: &[StoredEvent], tracking: Option<&Tracking>) -> Vec<Conflict> {
        let collides =
            |event: &&StoredEvent| self.events.contains_key(&(event.originator_id, event.originator_version));
        let colliding = events.iter().filter(collides).map(StoredEvent::conflict);
        let mut conflicts: Vec<Conflict> = colliding.collect();
        let behind = |tracking: &&Tracking| {
            self.position(tracking.application_name())
                .is_some_and(|position| tracking.notification_id() <= position)
        };
        conflicts.extend(tracking.filter(behind).map(|tracking| Conflict::Tracking {
            application_name: tracking.application_name().to_owned(),
            notification_id: tracking.notification_id(),
        }));
        conflicts
    }

    pub(super) fn events(&self, originator_id: Uuid, range: &EventRange) -> Vec<StoredEvent> {
        let of_aggregate = self.events.values().filter(|event| event.originator_id == originator_id);
        let within = of_aggregate.filter(|event| {
            range.gt.is_none_or(|gt| event.originator_version > gt)
                && range.lte.is_none_or(|lte| event.originator_version <= lte)
        });
        let mut events: Vec<StoredEvent> = within.cloned().collect();
        if range.desc {
            events.reverse();
        }
        events.truncate(range.limit.unwrap_or(usize::MAX));
        events
    }

    pub(super) fn selected(&self, selection: &NotificationSelection) -> Vec<Notification> {
        let has_topic = |topic| selection.topics.is_empty() || selection.topics.contains(topic);
        let selected = self
            .notifications
            .iter()
            .filter(|each| selection.contains(each.id) && has_topic(&each.event.topic));
        selected.take(selection.limit).cloned().collect()
    }

    pub(super) fn highest_id(&self) -> Option<i64> {
        self.notifications.last().map(|last| last.id)
    }

    pub(super) fn position(&self, application_name: &str) -> Option<i64> {
        self.positions.get(application_name).copied()
    }
}

//! A bare hash map of shared payloads: the least cost of storing in memory.

use std::{
    collections::HashMap,
    hint::black_box,
    sync::{PoisonError, RwLock},
};

use anyhow::Result;
use es_core::{Notification, StoredEvent};
use uuid::Uuid;

use crate::workload::{Page, Store};

#[derive(Default)]
pub(crate) struct HashMapStore {
    events: RwLock<Events>,
}

#[derive(Default)]
struct Events {
    by_originator: HashMap<Uuid, Vec<StoredEvent>>,
    in_order: Vec<StoredEvent>,
}

impl Store for HashMapStore {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        let mut stored = self.events.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            stored.in_order.push(event.clone());
            stored.by_originator.entry(event.originator_id).or_default().push(event);
        }
        Ok(())
    }

    async fn append_if_new(&self, event: StoredEvent) -> Result<bool> {
        let mut stored = self.events.write().unwrap_or_else(PoisonError::into_inner);
        let aggregate = stored.by_originator.entry(event.originator_id).or_default();
        if aggregate.last().is_some_and(|last| last.originator_version >= event.originator_version) {
            return Ok(false);
        }
        aggregate.push(event.clone());
        stored.in_order.push(event);
        Ok(true)
    }

    async fn last_version(&self, originator_id: Uuid) -> Result<i64> {
        let stored = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let last = stored.by_originator.get(&originator_id).and_then(|events| events.last());
        Ok(last.map_or(0, |event| event.originator_version))
    }

    async fn load(&self, originator_id: Uuid) -> Result<usize> {
        let stored = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let events = stored.by_originator.get(&originator_id).cloned();
        Ok(black_box(events).map_or(0, |events| events.len()))
    }

    async fn page(&self, after: i64, limit: usize) -> Result<Page> {
        let stored = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let rest = stored.in_order.iter().skip(usize::try_from(after)?).take(limit);
        let notifications: Vec<_> =
            (after + 1..).zip(rest).map(|(id, event)| Notification { id, event: event.clone() }).collect();
        let last = notifications.last().map_or(0, |notification| notification.id);
        Ok(Page { count: black_box(notifications).len(), last })
    }
}

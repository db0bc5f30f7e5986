//! Any recorder of ours.

use std::hint::black_box;

use anyhow::Result;
use es_core::{ApplicationRecorder, EventRange, NotificationSelection, StoredEvent};
use uuid::Uuid;

use crate::workload::{Page, Store};

/// A recorder as a program uses it.
pub(crate) struct RecorderStore<R>(pub(crate) R);

impl<R: ApplicationRecorder + 'static> Store for RecorderStore<R> {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        black_box(self.0.insert_events(events).await?);
        Ok(())
    }

    async fn load(&self, originator_id: Uuid) -> Result<usize> {
        let events = self.0.select_events(originator_id, EventRange::all()).await?;
        Ok(black_box(events).len())
    }

    async fn page(&self, after: i64, limit: usize) -> Result<Page> {
        let selection = NotificationSelection::new(limit).after(after);
        let notifications = black_box(self.0.select_notifications(selection).await?);
        let last = notifications.last().map_or(0, |notification| notification.id);
        Ok(Page { count: notifications.len(), last })
    }
}

//! Any recorder of ours.

use std::hint::black_box;

use anyhow::Result;
use es_core::{ApplicationRecorder, ApplicationRecorderExt, EventRange, NotificationSelection, StoredEvent};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::workload::{Page, Store};

/// A recorder as a program uses it.
pub(crate) struct RecorderStore<R>(pub(crate) R);

impl<R: ApplicationRecorder + 'static> Store for RecorderStore<R> {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        black_box(self.0.insert_events(events).await?);
        Ok(())
    }

    async fn offer(&self, event: StoredEvent) -> Result<bool> {
        match self.0.insert_events(vec![event]).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn last_version(&self, originator_id: Uuid) -> Result<i64> {
        let last = self.0.select_events(originator_id, EventRange::all().desc().limit(1)).await?;
        Ok(last.first().map_or(0, |event| event.originator_version))
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

    async fn stream(&self, events: usize) -> Result<usize> {
        let stream = self.0.stream_notifications(NotificationSelection::new(events));
        let count = async |seen, notification| {
            black_box(notification);
            Ok(seen + 1)
        };
        Ok(stream.try_fold(0, count).await?)
    }
}

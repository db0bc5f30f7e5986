//! Adapters of our recorders.

use std::{
    hint::black_box,
    sync::atomic::{AtomicI64, Ordering},
};

use anyhow::Result;
use es_core::{
    ApplicationRecorder, ApplicationRecorderExt, EventRange, NotificationSelection, ProcessRecorder,
    StoredEvent, Tracking,
};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::workload::{Page, Store};

/// A recorder, used as in a program.
pub(crate) struct RecorderStore<R>(pub(crate) R);

impl<R: ApplicationRecorder + 'static> Store for RecorderStore<R> {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        black_box(self.0.insert_events(events).await?);
        Ok(())
    }

    async fn append_if_new(&self, event: StoredEvent) -> Result<bool> {
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

/// The application whose positions are recorded.
pub(crate) const TRACKED: &str = "upstream";

/// A process recorder that records the next position with each append.
pub(crate) struct TrackingStore<R> {
    recorder: R,
    position: AtomicI64,
}

impl<R> TrackingStore<R> {
    pub(crate) fn new(recorder: R) -> Self {
        Self { recorder, position: AtomicI64::new(1) }
    }
}

impl<R: ProcessRecorder + 'static> Store for TrackingStore<R> {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        let tracking = Tracking::new(TRACKED, self.position.fetch_add(1, Ordering::Relaxed))?;
        black_box(self.recorder.insert_events_with_tracking(events, tracking).await?);
        Ok(())
    }
}

//! Bytes that claim to be a database that the Python library wrote.

use std::{fs, num::NonZeroUsize, time::Duration};

use es_persistence::{
    AggregateRecorder, ApplicationRecorder, DomainEvent, EventRange, Mapper, NotificationSelection,
    PersistenceError, StoredEvent, TrackingRecorder,
    sqlite::{SqliteDatastore, SqliteOptions, Synchronous},
};
use uuid::Uuid;

use crate::bank::{AccountEvent, transcoder};

/// More than inputs have room for.
const PAGES: usize = 64;

/// Any file as a database: it is refused, or read and written; no call panics or loops.
#[expect(clippy::expect_used, reason = "neither a runtime nor a directory depends on the input")]
pub fn python_database(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("events.db");
    fs::write(&path, data).expect("a file");
    let options = SqliteOptions::new(&path)
        .readers(NonZeroUsize::MIN)
        .lock_timeout(Duration::from_millis(100))
        .synchronous(Synchronous::Off);
    runtime.block_on(async {
        let Ok(datastore) = options.open().await else { return };
        // A failed call is an error; the test is that no call panics or loops.
        let _ = use_application(&datastore).await;
        let _ = use_snapshots(&datastore).await;
        let _ = datastore.close().await;
    });
}

async fn use_application(datastore: &SqliteDatastore) -> Result<(), PersistenceError> {
    let recorder = datastore.process_recorder().await?;
    let _ = recorder.max_notification_id().await;
    let _ = recorder.max_tracking_id("bank").await;
    let mut selection = NotificationSelection::new(10);
    for _ in 0..PAGES {
        let page = recorder.select_notifications(selection.clone()).await?;
        let Some(last) = page.last() else { break };
        selection = selection.start(last.id.saturating_add(1));
        for notification in &page {
            let _ = Mapper::new(transcoder()).to_domain_event::<AccountEvent>(&notification.event);
            let _ = recorder.select_events(notification.event.originator_id, EventRange::all()).await;
        }
    }
    recorder.insert_events(vec![closed()?]).await.map(drop)
}

async fn use_snapshots(datastore: &SqliteDatastore) -> Result<(), PersistenceError> {
    let recorder = datastore.aggregate_recorder("snapshots").await?;
    recorder.insert_events(vec![closed()?]).await?;
    recorder.select_events(Uuid::max(), EventRange::all().desc().limit(1)).await.map(drop)
}

fn closed() -> Result<StoredEvent, PersistenceError> {
    Mapper::new(transcoder()).to_stored_event(&DomainEvent::new(Uuid::max(), 1, AccountEvent::Closed))
}

//! Each database that the Python library wrote has exactly the content of the file next to it, typed, with
//! every attribute; events that are appended here are read back after the others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping it"
)]

mod account;
#[path = "../../examples/read_python_database/bank.rs"]
mod bank;
mod database;
#[cfg(feature = "postgres")]
mod postgres;
mod values;

use std::sync::Arc;

use bank::{Account, AccountEvent};
use database::Database;
use es_persistence::{
    AggregateRecorder, ApplicationRecorder, DomainEvent, DynProcessRecorder, EventRange, EventStore,
    Notification, NotificationSelection, ProcessRecorder, Snapshot, Tracking, TrackingRecorder,
    transcode::JsonTranscoder,
};
use uuid::Uuid;
use values::{attributes, comparable};

type Store = EventStore<Arc<dyn DynProcessRecorder>, JsonTranscoder>;

macro_rules! databases {
    ($($test:ident = $open:ident($name:literal);)*) => {
        $(mod $test {
            use super::*;

            #[tokio::test]
            async fn every_event_is_found() {
                let Some(database) = Database::$open($name).await else { return };
                finds_every_event(&database).await;
            }

            #[tokio::test]
            async fn every_snapshot_is_found() {
                let Some(database) = Database::$open($name).await else { return };
                finds_every_snapshot(&database).await;
            }

            #[tokio::test]
            async fn tracking_continues() {
                let Some(database) = Database::$open($name).await else { return };
                continues_tracking(&database).await;
            }

            #[tokio::test]
            async fn appended_events_are_read_after_recorded_ones() {
                let Some(database) = Database::$open($name).await else { return };
                appends(&database).await;
            }
        })*
    };
}

databases! {
    sqlite_of_9_1_plain = sqlite("sqlite-9.1-plain");
    sqlite_of_9_1_zlib = sqlite("sqlite-9.1-zlib");
    sqlite_of_9_1_aes128_zlib = sqlite("sqlite-9.1-aes128-zlib");
    sqlite_of_9_5_plain = sqlite("sqlite-9.5-plain");
    sqlite_of_9_5_aes192 = sqlite("sqlite-9.5-aes192");
    sqlite_of_9_5_aes256_zlib = sqlite("sqlite-9.5-aes256-zlib");
}

#[cfg(feature = "postgres")]
databases! {
    postgres_of_9_1_plain = postgres("postgres-9.1-plain");
    postgres_of_9_5_plain = postgres("postgres-9.5-plain");
}

async fn finds_every_event(database: &Database) {
    let store = database.store().await;
    let found = all_notifications(&store).await;
    assert_eq!(found.len(), database.expected.notifications.len());
    for (found, expected) in found.iter().zip(&database.expected.notifications) {
        assert_eq!(Some(found.id), expected.id);
        assert_eq!(found.event.originator_id, expected.originator_id);
        assert_eq!(found.event.originator_version, expected.originator_version);
        assert_eq!(found.event.topic, *expected.topic);
        assert_eq!(hex(&found.event.state), expected.state_hex);
        let event: DomainEvent<AccountEvent> = store.mapper().to_domain_event(&found.event).unwrap();
        assert_eq!(attributes(event), comparable(&expected.attributes), "notification {}", found.id);
    }
}

async fn finds_every_snapshot(database: &Database) {
    let factory = database.factory();
    let snapshots = factory.snapshot_store().await.unwrap().expect("snapshotting is enabled");
    let store = database.store().await;
    assert!(!database.expected.snapshots.is_empty());
    for expected in &database.expected.snapshots {
        let newest = EventRange::all().desc().limit(1);
        let stored = snapshots.recorder().select_events(expected.originator_id, newest).await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].originator_version, expected.originator_version);
        assert_eq!(stored[0].topic, *expected.topic);
        assert_eq!(hex(&stored[0].state), expected.state_hex);
        let typed = snapshots.get::<Snapshot<Account>>(expected.originator_id, newest).await.unwrap();
        let account = &typed[0].payload.state;
        assert_eq!(*account, replayed(&store, expected.originator_id, expected.originator_version).await);
    }
}

async fn continues_tracking(database: &Database) {
    let store = database.store().await;
    let recorder = store.recorder();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
    assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(41));
    assert_eq!(recorder.max_tracking_id("__migration__").await.unwrap(), None);
    let refused = recorder.insert_tracking(Tracking::new("upstream", 7).unwrap()).await.unwrap_err();
    assert!(refused.is_conflict());
    recorder.insert_events_with_tracking(Vec::new(), Tracking::new("upstream", 9).unwrap()).await.unwrap();
    let refused = recorder.insert_tracking(Tracking::new("upstream", 8).unwrap()).await.unwrap_err();
    assert!(refused.is_conflict());
    assert_eq!(database.store().await.recorder().max_tracking_id("upstream").await.unwrap(), Some(9));
}

async fn appends(database: &Database) {
    let before = all_notifications(&database.store().await).await;
    let account = before[0].event.originator_id;
    let version = before.iter().filter(|found| found.event.originator_id == account).count() as i64 + 1;
    let event = DomainEvent::new(account, version, AccountEvent::Closed);
    let ids = database.store().await.put(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(ids, [before.len() as i64 + 1]);

    let store = database.store().await;
    let after = all_notifications(&store).await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    let events = store.get::<AccountEvent>(account, EventRange::all()).await.unwrap();
    assert_eq!(events.len() as i64, version);
    assert_eq!(events.last(), Some(&event));
    let refused = store.put(&[event]).await.unwrap_err();
    assert!(refused.is_conflict());
}

async fn all_notifications(store: &Store) -> Vec<Notification> {
    store.recorder().select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap()
}

/// Replays the events of the account; its snapshot must equal the result.
async fn replayed(store: &Store, id: Uuid, version: i64) -> Account {
    let events = store.get::<AccountEvent>(id, EventRange::all().lte(version)).await.unwrap();
    let apply = |account, event| Some(account::apply(account, event).expect("the event follows"));
    events.into_iter().fold(None, apply).expect("the account has events")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

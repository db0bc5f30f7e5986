//! Erasure.

use std::{sync::Arc, time::Duration};

use es_aggregate::{Aggregate, Repository, SnapshotPolicy};
use es_core::{
    ApplicationRecorder, ErrorKind, EventRange, EventStore, Expected, Mapper, Metadata, SnapshotState,
    time::OffsetDateTime, uuid::Uuid,
};
use es_personal::{Erasure, KeyStore, Personal};
use es_popo::{PopoAggregateRecorder, PopoApplicationRecorder};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    OrderEvent, keys, name, orders, placed, short_lived_keys,
    stores::{Place, on_each_store},
    subject, transcoder,
};

on_each_store!(
    erased_values_are_decoded_as_erased_and_others_remain,
    other_processes_read_until_their_keys_expire,
    an_erased_subject_gets_no_key_again,
    an_erasure_is_recorded_once,
    a_name_that_not_every_store_can_have_is_refused_before_anything_is_recorded,
    erasures_are_listed_in_pages,
    an_aggregate_with_erased_values_folds_and_has_snapshots,
);

const ID: Uuid = Uuid::from_u128(1);

fn erased(number: u128) -> Personal<String> {
    Personal::Erased { subject: subject(number) }
}

async fn erased_values_are_decoded_as_erased_and_others_remain(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let keys = keys(place.open().await);
    let orders = orders(&log, &keys);
    let event = OrderEvent::Renamed { first: name(1, "Alice"), last: name(2, "Smith") };
    orders.append(ID, Expected::New, [event.clone()]).await.unwrap();
    keys.erase(subject(1), "data protection officer").await.unwrap();

    let read = orders.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    let expected = OrderEvent::Renamed { first: erased(1), last: name(2, "Smith") };
    assert_eq!(read[0].payload, expected);
    // What was read can be recorded again, for example in another log.
    orders.append(Uuid::from_u128(2), Expected::New, [expected.clone()]).await.unwrap();
    let other = crate::orders(&log, &crate::keys(place.open().await));
    let read = other.get::<OrderEvent>(Uuid::from_u128(2), EventRange::all()).await.unwrap();
    assert_eq!(read[0].payload, expected);
}

async fn other_processes_read_until_their_keys_expire(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let eraser = keys(place.open().await);
    orders(&log, &eraser).append(ID, Expected::New, [placed(name(1, "Alice"))]).await.unwrap();
    let mut readers = Vec::new();
    let mut loaded = Vec::new();
    for _ in 0..2 {
        let orders = orders(&log, &short_lived_keys(place.open().await));
        let (first, is_loaded) = tokio::sync::oneshot::channel();
        loaded.push(is_loaded);
        readers.push(tokio::spawn(async move {
            let mut first = Some(first);
            loop {
                let read = orders.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
                if read[0].payload == placed(erased(1)) {
                    return;
                }
                assert_eq!(read[0].payload, placed(name(1, "Alice")));
                if let Some(first) = first.take() {
                    first.send(()).unwrap();
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for is_loaded in loaded {
        is_loaded.await.unwrap();
    }
    eraser.erase(subject(1), "test").await.unwrap();
    for reader in readers {
        timeout(Duration::from_secs(60), reader).await.unwrap().unwrap();
    }
}

async fn an_erased_subject_gets_no_key_again(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let eraser = keys(place.open().await);
    // One subject with a key, and one without.
    orders(&log, &eraser).append(ID, Expected::New, [placed(name(1, "Alice"))]).await.unwrap();
    for number in [1, 2] {
        eraser.erase(subject(number), "test").await.unwrap();
        for keys in [&eraser, &keys(place.open().await)] {
            let event = placed(name(number, "Alice"));
            let error = orders(&log, keys).append(ID, Expected::Any, [event]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains("is erased"), "{error}");
        }
    }
    // The opposite: a value that claims to be erased.
    let error = orders(&log, &eraser).append(ID, Expected::Any, [placed(erased(3))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
}

async fn an_erasure_is_recorded_once(place: impl Place) {
    let keys = keys(place.open().await);
    assert_eq!(keys.erasure(&subject(1)).await.unwrap(), None);
    let first = keys.erase(subject(1), "Alice").await.unwrap();
    assert_eq!((&first.subject, &*first.erased_by), (&subject(1), "Alice"));
    assert_eq!(keys.erase(subject(1), "Bob").await.unwrap(), first);
    assert_eq!(crate::keys(place.open().await).erasure(&subject(1)).await.unwrap(), Some(first));
    let erased_at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_457_000).unwrap();
    let erasure = Erasure { subject: subject(2), erased_at, erased_by: "Zoë".to_owned() };
    assert_eq!(place.open().await.erase(erasure.clone()).await.unwrap(), erasure);
}

/// PostgreSQL stores no text with a NUL: the log had the notification of an erasure that never succeeded.
async fn a_name_that_not_every_store_can_have_is_refused_before_anything_is_recorded(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let keys = keys(place.open().await);
    let orders = orders(&log, &keys);
    orders.append(ID, Expected::New, [placed(name(1, "Alice"))]).await.unwrap();
    for refused in [
        keys.erase(subject(1), "Bob\0").await.unwrap_err(),
        keys.erase_in(&orders, subject(1), "Bob\0").await.unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Data);
        assert!(refused.to_string().contains("has a NUL"), "{refused}");
    }
    assert_eq!(log.max_notification_id().await.unwrap(), Some(1));
    assert_eq!(keys.erasure(&subject(1)).await.unwrap(), None);
    let long = "Zoë ".repeat(10_000);
    assert_eq!(keys.erase_in(&orders, subject(1), &*long).await.unwrap().erased_by, long);
}

async fn erasures_are_listed_in_pages(place: impl Place) {
    let store = place.open().await;
    let keys = keys(place.open().await);
    let log = Arc::new(PopoApplicationRecorder::new());
    orders(&log, &keys).append(ID, Expected::New, [placed(name(4, "Alice"))]).await.unwrap();
    for number in [5, 3, 2] {
        keys.erase(subject(number), "test").await.unwrap();
    }
    let first = store.select_erasures(None, 2).await.unwrap();
    let rest = store.select_erasures(Some(subject(3)), 2).await.unwrap();
    let subjects: Vec<_> = [first, rest].concat().into_iter().map(|erasure| erasure.subject).collect();
    assert_eq!(subjects, [2, 3, 5].map(subject));
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Order {
    buyers: Vec<Personal<String>>,
}

impl Aggregate for Order {
    type Event = OrderEvent;

    fn apply(&mut self, event: &OrderEvent) {
        if let OrderEvent::Placed { buyer, .. } = event {
            self.buyers.push(buyer.clone());
        }
    }
}

impl SnapshotState for Order {
    const AGGREGATE_TOPIC: &str = "shop:Order";
    // Its states pass through serde's buffer for flattened fields.
    const CLASS_VERSION: u32 = 2;
}

async fn an_aggregate_with_erased_values_folds_and_has_snapshots(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let snapshots = Arc::new(PopoAggregateRecorder::new());
    let eraser = keys(place.open().await);
    let repository = |keys| {
        let snapshots = EventStore::new(Arc::clone(&snapshots), Mapper::new(transcoder(&keys)));
        Repository::<Order, _, _>::new(orders(&log, &keys)).snapshots(snapshots, SnapshotPolicy::every(2))
    };
    let buy =
        |number| move |_: &Order| Ok::<_, std::convert::Infallible>(vec![placed(name(number, "Alice"))]);
    let first = repository(eraser.clone());
    for number in [1, 2, 3] {
        first.execute(ID, Metadata::new(), buy(number)).await.unwrap();
    }
    let snapshot = EventStore::new(Arc::clone(&snapshots), Mapper::new(transcoder(&eraser)));
    timeout(Duration::from_secs(60), async {
        while snapshot.get::<es_core::Snapshot<Order>>(ID, EventRange::all()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();

    eraser.erase(subject(1), "test").await.unwrap();
    let second = repository(keys(place.open().await));
    let loaded = second.load(ID).await.unwrap();
    assert_eq!(
        (loaded.version, loaded.state.buyers),
        (3, vec![erased(1), name(2, "Alice"), name(3, "Alice")])
    );
    // The next snapshot has an erased value.
    second.execute(ID, Metadata::new(), buy(4)).await.unwrap();
    timeout(Duration::from_secs(60), async {
        while snapshot.get::<es_core::Snapshot<Order>>(ID, EventRange::all()).await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let third = repository(keys(place.open().await));
    assert_eq!(third.load(ID).await.unwrap().state.buyers[0], erased(1));
}

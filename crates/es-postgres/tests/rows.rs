//! Rows that the Python library, or a program without this library, wrote; and pages of large rows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test panics where it fails")]

mod common;

use common::prelude::*;
use es_core::{AggregateRecorderExt, DEFAULT_PAGE_BYTES};
use futures_util::TryStreamExt;

const ID: Uuid = Uuid::from_u128(1);

/// The story: the Python library records an empty topic, which no reader got past. The error said only that
/// the topic was empty.
#[tokio::test]
async fn an_empty_topic_is_read_and_copied() {
    let (schema, other) = (Schema::create().await, Schema::create().await);
    let recorder = schema.open().await.application_recorder("bank").await.unwrap();
    recorder.insert_events(vec![first()]).await.unwrap();
    let insert = format!(
        "INSERT INTO {} (originator_id, originator_version, topic, state) VALUES ('{ID}', 7, '', 'a')",
        schema.table("bank_events")
    );
    run(&mut schema.connect().await, &insert).await;
    recorder.insert_events(vec![event(ID, 8)]).await.unwrap();
    let page = recorder.select_notifications(NotificationSelection::new(10)).await.unwrap();
    let topics: Vec<_> = page.iter().map(|notification| notification.event.topic.as_str()).collect();
    assert_eq!(topics, ["bank:Account.Credited", "", "bank:Account.Credited"]);
    let selected = NotificationSelection::new(10).topics([Topic::from_stored("")]);
    assert_eq!(recorder.select_notifications(selected).await.unwrap(), page[1..2]);
    let copies = other.open().await.application_recorder("bank").await.unwrap();
    let events: Vec<StoredEvent> = page.into_iter().map(|notification| notification.event).collect();
    copies.insert_events(events.clone()).await.unwrap();
    assert_eq!(copies.select_events(ID, EventRange::all()).await.unwrap(), events[1..]);
}

#[tokio::test]
async fn a_row_without_topic_or_state_is_named() {
    for (column, words) in [("topic", "has no topic"), ("state", "has no state")] {
        let schema = Schema::create().await;
        let recorder = schema.open().await.application_recorder("bank").await.unwrap();
        recorder.insert_events(vec![event(ID, 7)]).await.unwrap();
        let table = schema.table("bank_events");
        let statements =
            format!("ALTER TABLE {table} ALTER {column} DROP NOT NULL; UPDATE {table} SET {column} = NULL");
        run(&mut schema.connect().await, &statements).await;
        let error = recorder.select_notifications(NotificationSelection::new(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        for word in ["notification 1:", &format!("version 7 of originator {ID}"), words] {
            assert!(error.to_string().contains(word), "{word} in {error}");
        }
    }
}

fn large(version: i64, bytes: usize) -> StoredEvent {
    StoredEvent { state: Bytes::from(vec![7; bytes]), ..event(ID, version) }
}

/// The story: pages were bounded in rows alone, and 1,000 events of 1 MiB took 1.05 GB.
#[tokio::test]
async fn pages_of_large_events_are_bounded() {
    for (ordering, pooler) in [
        (NotificationOrdering::Serialized, false),
        (NotificationOrdering::Parallel, false),
        (NotificationOrdering::Serialized, true),
    ] {
        let schema = Schema::create().await;
        let options = schema.options().ordering(ordering).transaction_pooler(pooler);
        let recorder = options.open().await.unwrap().application_recorder("bank").await.unwrap();
        let size = 1 << 20;
        let events: Vec<_> = (1..=40).map(|version| large(version, size)).collect();
        for batch in events.chunks(8) {
            recorder.insert_events(batch.to_vec()).await.unwrap();
            // A gap in the ids.
            recorder.insert_events(vec![event(ID, 1)]).await.unwrap_err();
        }
        recorder.insert_events(vec![event(ID, 41)]).await.unwrap();
        let most = DEFAULT_PAGE_BYTES.get() / size;

        for topics in [vec![], vec![events[0].topic.clone()]] {
            let mut subscription = recorder.subscribe(0, topics);
            let mut seen = Vec::new();
            while seen.len() < 41 {
                let page = subscription.next_page().await.unwrap().expect("the recorder is open");
                assert!((1..=most).contains(&page.notifications.len()), "{}", page.notifications.len());
                seen.extend(page.notifications.iter().map(|read| read.event.originator_version));
            }
            assert_eq!(seen, (1..=41).collect::<Vec<_>>());
        }

        let bounded = NotificationSelection::new(100).max_bytes(3 * size).stop(i64::MAX);
        let page = recorder.select_notifications(bounded.clone()).await.unwrap();
        assert_eq!(page.len(), 3);
        assert!(bounded.is_filled_by(&page));
        assert_eq!(recorder.select_notifications(bounded.max_bytes(0)).await.unwrap().len(), 1);
        let range = EventRange::all().desc().max_bytes(2 * size);
        assert_eq!(recorder.select_events(ID, range).await.unwrap().len(), 3);
        let streamed: Vec<Notification> = recorder
            .stream_notifications(NotificationSelection::new(usize::MAX))
            .try_collect()
            .await
            .unwrap();
        assert_eq!(streamed.len(), 41);
        let streamed: Vec<StoredEvent> =
            recorder.stream_events(ID, EventRange::all().gt(1).desc()).try_collect().await.unwrap();
        assert_eq!(streamed.len(), 40);
    }
}

//! The rotation of the keys that wrap the keys of subjects.

use std::sync::Arc;

use es_core::{Bytes, ErrorKind, EventRange, Expected, uuid::Uuid};
use es_crypto::{AesKey, KeyRing};
use es_personal::{KeyRecord, KeyReplacement, KeyStore, Rewrapping, SubjectKeys, WrappedKey};
use es_popo::PopoApplicationRecorder;

use crate::{
    OrderEvent, name, orders, placed,
    stores::{Place, on_each_store},
    subject,
};

on_each_store!(
    keys_are_wrapped_again_and_read_with_the_new_key_alone,
    a_rewrapping_leaves_erasures_and_later_keys_as_they_are,
    keys_that_were_replaced_in_the_meantime_are_not_replaced,
    keys_are_selected_in_pages,
    rewrappings_run_together_with_first_uses_and_erasures,
);

const ID: Uuid = Uuid::from_u128(1);

/// A ring of these keys, of which the first one encrypts.
fn ring(ids: &[u32]) -> KeyRing {
    let mut ring = KeyRing::builder();
    for id in ids {
        ring = ring.key(*id, AesKey::from_bytes(&[id.to_be_bytes()[3]; 32]).unwrap());
    }
    ring.build().unwrap()
}

async fn append(store: impl KeyStore, ring: KeyRing, numbers: impl Iterator<Item = u128>) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let events = numbers.map(|number| placed(name(number, "Alice")));
    orders(&log, &SubjectKeys::new(store, ring)).append(ID, Expected::New, events).await.unwrap();
}

/// Returns the numbers of keys that were read and that were wrapped again.
async fn rewrap(store: &impl KeyStore, ring: &KeyRing) -> (usize, usize) {
    let mut rewrapping = Rewrapping::new(store, ring);
    let mut total = (0, 0);
    while let Some(page) = rewrapping.next_page().await.unwrap() {
        total = (total.0 + page.read, total.1 + page.replaced);
    }
    total
}

async fn usage(store: &impl KeyStore) -> Vec<(Option<u32>, u64)> {
    Rewrapping::usage(store).await.unwrap().iter().collect()
}

async fn keys_are_wrapped_again_and_read_with_the_new_key_alone(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let events: Vec<_> = (1..=1_100).map(|number| placed(name(number, "Alice"))).collect();
    let writer = orders(&log, &SubjectKeys::new(place.open().await, ring(&[1])));
    writer.append(ID, Expected::New, events.clone()).await.unwrap();
    let store = place.open().await;
    assert_eq!(usage(&store).await, [(Some(1), 1_100)]);

    // Interrupted after a page, and begun anew.
    let new = ring(&[2, 1]);
    let page = Rewrapping::new(&store, &new).next_page().await.unwrap().unwrap();
    assert_eq!((page.read, page.replaced), (500, 500));
    assert_eq!(usage(&store).await, [(Some(1), 600), (Some(2), 500)]);
    assert_eq!(rewrap(&store, &new).await, (1_100, 600));
    assert_eq!(usage(&store).await, [(Some(2), 1_100)]);
    assert_eq!(rewrap(&store, &new).await, (1_100, 0));

    let reader = orders(&log, &SubjectKeys::new(place.open().await, ring(&[2])));
    let read = reader.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    assert!(read.into_iter().map(|event| event.payload).eq(events));
}

async fn a_rewrapping_leaves_erasures_and_later_keys_as_they_are(place: impl Place) {
    let (store, new) = (place.open().await, ring(&[2, 1]));
    append(place.open().await, ring(&[1]), 1..=3).await;
    let erasure = SubjectKeys::new(place.open().await, new.clone()).erase(subject(2), "test").await.unwrap();
    append(place.open().await, new.clone(), 4..=4).await;
    assert_eq!(rewrap(&store, &new).await, (3, 2));
    assert_eq!(store.select(&[subject(2)]).await.unwrap(), [KeyRecord::Erased(erasure)]);
    // A ring that lacks the key of a subject's key names it, and no secret.
    let error = Rewrapping::new(&store, &ring(&[3])).next_page().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains(subject(1).as_str()), "{error}");
}

async fn keys_that_were_replaced_in_the_meantime_are_not_replaced(place: impl Place) {
    let store = place.open().await;
    let key =
        |number, key: &'static [u8]| WrappedKey { subject: subject(number), key: Bytes::from_static(key) };
    store.insert((1..=3).map(|number| key(number, b"first")).collect()).await.unwrap();
    SubjectKeys::new(place.open().await, ring(&[1])).erase(subject(2), "test").await.unwrap();
    let replace = |number, current| KeyReplacement { current, replacement: key(number, b"second") };
    let replacements = vec![
        replace(1, key(1, b"first")),
        replace(2, key(2, b"first")),
        replace(3, key(3, b"other")),
        replace(4, key(4, b"first")),
    ];
    assert_eq!(store.replace_keys(replacements).await.unwrap(), 1);
    let keys = place.open().await.select_keys(None, 10).await.unwrap();
    assert_eq!(keys, [key(1, b"second"), key(3, b"first")]);
    assert_eq!(store.replace_keys(Vec::new()).await.unwrap(), 0);
}

async fn keys_are_selected_in_pages(place: impl Place) {
    append(place.open().await, ring(&[1]), 1..=5).await;
    let store = place.open().await;
    SubjectKeys::new(place.open().await, ring(&[1])).erase(subject(2), "test").await.unwrap();
    let first = store.select_keys(None, 2).await.unwrap();
    let rest = store.select_keys(Some(subject(3)), 10).await.unwrap();
    let subjects: Vec<_> = [first, rest].concat().into_iter().map(|key| key.subject).collect();
    assert_eq!(subjects, [1, 3, 4, 5].map(subject));
}

async fn rewrappings_run_together_with_first_uses_and_erasures(place: impl Place) {
    const SUBJECTS: u128 = 60;
    append(place.open().await, ring(&[1]), 1..=SUBJECTS).await;
    let new = ring(&[2, 1]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (store, ring) = (place.open().await, new.clone());
        tasks.spawn(async move {
            rewrap(&store, &ring).await;
        });
    }
    let (store, ring_of_writer) = (place.open().await, new.clone());
    tasks.spawn(append(store, ring_of_writer, SUBJECTS + 1..=2 * SUBJECTS));
    let eraser = SubjectKeys::new(place.open().await, new.clone());
    tasks.spawn(async move {
        for number in (1..=SUBJECTS).step_by(3) {
            eraser.erase(subject(number), "test").await.unwrap();
        }
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let store = place.open().await;
    assert_eq!(usage(&store).await, [(Some(2), 100)]);
    assert_eq!(store.select_erasures(None, 100).await.unwrap().len(), 20);
    // Each of the keys is still the subject's own.
    assert_eq!(rewrap(&store, &ring(&[1, 2])).await, (100, 100));
}

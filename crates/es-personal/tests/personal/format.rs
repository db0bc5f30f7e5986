//! The bytes: vectors, and bytes that were changed.

use std::sync::Arc;

use es_core::{Bytes, DomainEvent, ErrorKind, Mapper, StoredEvent, uuid::Uuid};
use es_crypto::{AesKey, KeyRing};
use es_derive::Event;
use es_personal::{KeyRecord, KeyStore, MemoryKeyStore, Personal, Subject, SubjectKeys, WrappedKey};
use es_popo::PopoApplicationRecorder;

use crate::{OrderEvent, keys, name, orders, placed, subject, transcoder};

fn hex(text: &serde_json::Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The sealed event of the vectors.
#[derive(Debug, PartialEq, Event)]
#[event(topic = "shop:Customer.Registered", subject = customer, erased = Self::erased)]
struct Registered {
    originator_topic: String,
    customer: Subject,
    name: String,
}

impl Registered {
    fn erased(customer: Subject) -> Self {
        Self { originator_topic: String::new(), customer, name: String::new() }
    }
}

/// The vectors were made by Python's `cryptography`.
#[tokio::test]
async fn values_and_keys_of_another_implementation_are_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/personal/vectors.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let ring_key = AesKey::from_bytes(&hex(&vectors["ring_key"])).unwrap();
    let ring_key_id = vectors["ring_key_id"].as_u64().unwrap().try_into().unwrap();
    let ring = KeyRing::builder().key(ring_key_id, ring_key).build().unwrap();
    let store = MemoryKeyStore::new();
    let keys = SubjectKeys::new(store.clone(), ring);
    let mut transcoder = transcoder(&keys);
    keys.register_events(&mut transcoder);
    let mapper = Mapper::new(transcoder);
    let vectors = vectors["values"].as_array().unwrap();
    assert!(!vectors.is_empty());
    for vector in vectors {
        let subject = Subject::new(vector["subject"].as_str().unwrap()).unwrap();
        let key = WrappedKey { subject: subject.clone(), key: hex(&vector["wrapped_key"]).into() };
        store.insert(vec![key]).await.unwrap();
        let personal = serde_json::json!({
            "_type_": "personal",
            "_data_": {"subject": subject.as_str(), "sealed": vector["sealed"]},
        });
        let value = vector["value"].as_str().unwrap().to_owned();
        let read = mapper.read_event::<OrderEvent>(&stored(&personal)).await.unwrap();
        assert_eq!(read.payload, placed(Personal::new(subject.clone(), value.clone())));

        let state = Bytes::from(vector["event"].as_str().unwrap().to_owned());
        let event = StoredEvent { topic: Registered::TOPIC, state, ..stored(&personal) };
        let read = mapper.read_event::<Registered>(&event).await.unwrap();
        let originator_topic = "shop:Customer".to_owned();
        assert_eq!(read.payload, Registered { originator_topic, customer: subject, name: value });
    }
}

/// An event with this JSON as its personal value.
fn stored(personal: &serde_json::Value) -> StoredEvent {
    let timestamp = serde_json::json!({"_type_": "datetime_iso", "_data_": "2024-01-01T00:00:00+00:00"});
    let state = serde_json::json!({
        "timestamp": timestamp, "item": "book", "buyer": personal, "receiver": null, "watchers": [],
    });
    StoredEvent {
        originator_id: Uuid::nil(),
        originator_version: 1,
        topic: OrderEvent::PLACED,
        state: state.to_string().into(),
    }
}

#[tokio::test]
async fn every_changed_bit_of_a_value_is_refused() {
    let mapper = Mapper::new(transcoder(&keys(MemoryKeyStore::new())));
    let event = DomainEvent::new(Uuid::nil(), 1, placed(name(1, "Alice")));
    let [stored] = mapper.write_events(&[event]).await.unwrap().try_into().unwrap();
    mapper.read_event::<OrderEvent>(&stored).await.unwrap();
    let text = String::from_utf8(stored.state.to_vec()).unwrap();
    let start = text.find(r#"{"_type_":"personal""#).unwrap();
    let end = start + text[start..].find("}}").unwrap() + 2;
    for at in start..end {
        for bit in 0..8 {
            let mut state = stored.state.to_vec();
            state[at] ^= 1 << bit;
            let changed = StoredEvent { state: Bytes::from(state), ..stored.clone() };
            let read = mapper.read_event::<OrderEvent>(&changed).await;
            assert!(read.is_err(), "bit {bit} of byte {at} of {text}");
        }
    }
}

#[tokio::test]
async fn every_changed_bit_of_a_wrapped_key_is_refused() {
    let store = MemoryKeyStore::new();
    let mapper = Mapper::new(transcoder(&keys(store.clone())));
    let event = DomainEvent::new(Uuid::nil(), 1, placed(name(1, "Alice")));
    let [stored] = mapper.write_events(&[event]).await.unwrap().try_into().unwrap();
    let [KeyRecord::Key(key)] = &store.select(&[subject(1)]).await.unwrap()[..] else { panic!("no key") };
    for at in 0..key.key.len() {
        for bit in 0..8 {
            let mut changed = key.key.to_vec();
            changed[at] ^= 1 << bit;
            let damaged = MemoryKeyStore::new();
            damaged.insert(vec![WrappedKey { key: changed.into(), ..key.clone() }]).await.unwrap();
            let mapper = Mapper::new(transcoder(&keys(damaged)));
            let error = mapper.read_event::<OrderEvent>(&stored).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
            assert!(error.to_string().contains(subject(1).as_str()), "{error}");
        }
    }
}

#[tokio::test]
async fn values_and_keys_that_are_swapped_between_subjects_are_refused() {
    let store = MemoryKeyStore::new();
    let mapper = Mapper::new(transcoder(&keys(store.clone())));
    let event = |number| DomainEvent::new(Uuid::nil(), 1, placed(name(number, "Alice")));
    let written = mapper.write_events(&[event(1), event(2)]).await.unwrap();
    let value = |event: &StoredEvent| {
        let state: serde_json::Value = serde_json::from_slice(&event.state).unwrap();
        state["buyer"]["_data_"]["sealed"].clone()
    };
    let moved = serde_json::json!({
        "_type_": "personal",
        "_data_": {"subject": subject(1).as_str(), "sealed": value(&written[1])},
    });
    let error = mapper.read_event::<OrderEvent>(&stored(&moved)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);

    let records = store.select(&[subject(2)]).await.unwrap();
    let [KeyRecord::Key(key)] = &records[..] else { panic!("no key") };
    let swapped = MemoryKeyStore::new();
    swapped.insert(vec![WrappedKey { subject: subject(1), ..key.clone() }]).await.unwrap();
    let mapper = Mapper::new(transcoder(&keys(swapped)));
    let error = mapper.read_event::<OrderEvent>(&written[0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
}

#[tokio::test]
async fn a_value_without_a_sealed_part_is_refused_unless_its_subject_is_erased() {
    let store = MemoryKeyStore::new();
    let keys = keys(store);
    let log = Arc::new(PopoApplicationRecorder::new());
    let orders = orders(&log, &keys);
    orders.put(&[DomainEvent::new(Uuid::nil(), 1, placed(name(1, "Alice")))]).await.unwrap();
    let blank = serde_json::json!({
        "_type_": "personal", "_data_": {"subject": subject(1).as_str(), "sealed": null},
    });
    let missing = serde_json::json!({"_type_": "personal", "_data_": {"subject": subject(1).as_str()}});
    for personal in [&blank, &missing] {
        let error = orders.mapper().read_event::<OrderEvent>(&stored(personal)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }
    keys.erase(subject(1), "test").await.unwrap();
    let read = orders.mapper().read_event::<OrderEvent>(&stored(&blank)).await.unwrap();
    assert_eq!(read.payload, placed(Personal::Erased { subject: subject(1) }));
    assert!(orders.mapper().read_event::<OrderEvent>(&stored(&missing)).await.is_err());
}

#[tokio::test]
async fn a_subject_that_the_key_store_does_not_know_is_an_error_and_no_erasure() {
    let mapper = Mapper::new(transcoder(&keys(MemoryKeyStore::new())));
    let event = DomainEvent::new(Uuid::nil(), 1, placed(name(1, "Alice")));
    let written = mapper.write_events(&[event]).await.unwrap();
    let store = MemoryKeyStore::new();
    let other = Mapper::new(transcoder(&keys(store.clone())));
    for _ in 0..2 {
        let error = other.read_event::<OrderEvent>(&written[0]).await.unwrap_err();
        assert!(error.to_string().contains("neither a key nor an erasure"), "{error}");
    }
    assert!(store.select(&[subject(1)]).await.unwrap().is_empty(), "reading creates no key");
}

//! Values that are written and read.

use std::sync::Arc;

use es_core::{AggregateRecorder, Bytes, DomainEvent, ErrorKind, EventRange, Expected, Mapper, uuid::Uuid};
use es_derive::Event;
use es_personal::{KeyRecord, KeyReplacement, KeyStore, Personal, Rewrapping, Sealed, Subject, WrappedKey};
use es_popo::PopoApplicationRecorder;

use crate::{
    Address, OrderEvent, keys, name, orders, placed,
    stores::{Place, on_each_store},
    subject, transcoder,
};

on_each_store!(
    values_of_several_subjects_in_one_event_are_read_by_another_process,
    a_first_use_at_the_same_time_creates_one_key,
    values_of_an_older_class_version_are_upcast,
    a_subject_keeps_its_first_key_and_its_erasure,
    hostile_subjects_are_kept_apart,
);

const ID: Uuid = Uuid::from_u128(1);

async fn values_of_several_subjects_in_one_event_are_read_by_another_process(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let address = Address { street: "Rue 1".to_owned(), id: Uuid::from_u128(9) };
    let placed = OrderEvent::Placed {
        item: "book".to_owned(),
        buyer: name(1, "Alice"),
        receiver: Some(Personal::new(subject(2), address)),
        watchers: vec![name(1, "Alice"), name(3, "Carol")],
    };
    let writer = orders(&log, &keys(place.open().await));
    writer.append(ID, Expected::New, [placed.clone()]).await.unwrap();

    let stored = log.select_events(ID, EventRange::all()).await.unwrap();
    let state = String::from_utf8(stored[0].state.to_vec()).unwrap();
    for text in ["Alice", "Rue", "Carol"] {
        assert!(!state.contains(text), "{state}");
    }
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["item"], "book");
    assert_eq!(state["buyer"]["_type_"], "personal");
    assert_eq!(state["buyer"]["_data_"]["subject"], subject(1).as_str());

    let reader = orders(&log, &keys(place.open().await));
    let read = reader.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    assert_eq!(read[0].payload, placed);
    // By now the keys are in memory.
    assert_eq!(reader.mapper().to_domain_event::<OrderEvent>(&stored[0]).unwrap().payload, placed);
}

async fn a_first_use_at_the_same_time_creates_one_key(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let mut tasks = Vec::new();
    for writer in 1..=8 {
        let orders = orders(&log, &keys(place.open().await));
        tasks.push(tokio::spawn(async move {
            let events = (1..=5).map(|number| placed(name(number, "Alice")));
            orders.append(Uuid::from_u128(writer), Expected::New, events).await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let reader = orders(&log, &keys(place.open().await));
    for writer in 1..=8 {
        let read = reader.get::<OrderEvent>(Uuid::from_u128(writer), EventRange::all()).await.unwrap();
        let payloads: Vec<_> = read.into_iter().map(|event| event.payload).collect();
        assert_eq!(payloads, (1..=5).map(|number| placed(name(number, "Alice"))).collect::<Vec<_>>());
    }
}

async fn values_of_an_older_class_version_are_upcast(place: impl Place) {
    let keys = keys(place.open().await);
    let mapper = Mapper::new(transcoder(&keys));
    let event = DomainEvent::new(ID, 1, placed(name(1, "Alice Smith")));
    let [stored] = mapper.write_events(&[event]).await.unwrap().try_into().unwrap();
    let state: serde_json::Value = serde_json::from_slice(&stored.state).unwrap();
    let old = serde_json::json!({"timestamp": state["timestamp"], "name": state["buyer"]}).to_string();

    let read = mapper.decode_state::<OrderEvent>("shop:Order.Renamed", &old).unwrap();
    assert_eq!(read.payload, OrderEvent::Renamed { first: name(1, "Alice"), last: name(1, "Smith") });
    keys.erase(subject(1), "test").await.unwrap();
    let read = mapper.decode_state::<OrderEvent>("shop:Order.Renamed", &old).unwrap();
    let erased = Personal::Erased { subject: subject(1) };
    assert_eq!(read.payload, OrderEvent::Renamed { first: erased.clone(), last: erased });
}

async fn a_subject_keeps_its_first_key_and_its_erasure(place: impl Place) {
    let (one, other) = (place.open().await, place.open().await);
    let key = |key: &'static [u8]| WrappedKey { subject: subject(1), key: Bytes::from_static(key) };
    one.insert(vec![key(b"first")]).await.unwrap();
    other.insert(vec![key(b"second")]).await.unwrap();
    assert_eq!(one.select(&[subject(1)]).await.unwrap(), [KeyRecord::Key(key(b"first"))]);
    let erasure = keys(place.open().await).erase(subject(1), "test").await.unwrap();
    other.insert(vec![key(b"third")]).await.unwrap();
    assert_eq!(one.select(&[subject(1)]).await.unwrap(), [KeyRecord::Erased(erasure)]);
}

#[tokio::test]
async fn debug_and_other_serializers_show_no_value() {
    let value = name(1, "Alice");
    assert!(!format!("{value:?}").contains("Alice"));
    assert!(format!("{value:?}").contains(subject(1).as_str()));
    assert!(serde_json::to_string(&value).is_err());
    assert!(serde_json::from_str::<Personal<String>>(r#""Alice""#).is_err());
    // A type that is not registered is an error, too.
    let unregistered = Mapper::new(es_transcode::JsonTranscoder::new());
    let error = unregistered.write_events(&[DomainEvent::new(ID, 1, placed(value))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
}

/// The text of the values, and the bytes of the wrapped keys and of the ring's key.
const SECRETS: [&str; 3] = ["Alice", "wrapped-key", "7, 7, 7"];

fn assert_no_secret(shown: &str) {
    assert!(SECRETS.iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[tokio::test]
async fn nothing_that_is_shown_has_a_value_or_a_key() {
    let store = es_personal::MemoryKeyStore::new();
    let key = WrappedKey { subject: subject(1), key: Bytes::from_static(b"wrapped-key") };
    store.insert(vec![key.clone()]).await.unwrap();
    let keys = keys(store.clone());
    let ring = crate::ring();
    let transcoder = transcoder(&keys);
    let log = Arc::new(PopoApplicationRecorder::new());
    let shown: [&dyn std::fmt::Debug; 9] = [
        &store,
        &KeyRecord::Key(key.clone()),
        &KeyReplacement { current: key.clone(), replacement: key.clone() },
        &Rewrapping::new(&store, &ring),
        &keys,
        &transcoder,
        &orders(&log, &keys),
        &Sealed::Attributes("Alice"),
        &DomainEvent::new(ID, 1, placed(name(1, "Alice"))),
    ];
    shown.iter().for_each(|shown| assert_no_secret(&format!("{shown:?} {shown:#?}")));
    // Nor has an error: of a key that cannot be unwrapped, and of a value.
    let event = DomainEvent::new(ID, 1, placed(name(1, "Alice")));
    let error = Mapper::new(transcoder).write_events(&[event]).await.unwrap_err();
    assert!(error.to_string().contains(subject(1).as_str()), "{error}");
    assert_no_secret(&format!("{error} {error:?}"));
}

#[derive(Debug, Event)]
#[event(topic = "shop:Order.Placed")]
struct OfAnotherType {
    buyer: Personal<u32>,
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_without_the_value() {
    let keys = keys(es_personal::MemoryKeyStore::new());
    let mut transcoder = transcoder(&keys);
    keys.register::<u32>(&mut transcoder);
    let mapper = Mapper::new(transcoder);
    let event = DomainEvent::new(ID, 1, placed(name(1, "Alice")));
    let [stored] = mapper.write_events(&[event]).await.unwrap().try_into().unwrap();
    let error = mapper.read_event::<OfAnotherType>(&stored).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("invalid type: string, expected u32"), "{shown}");
    assert_no_secret(&shown);
}

/// Texts that are hard to store, quote or compare.
const SUBJECTS: [&str; 8] = [
    "'; DROP TABLE subject_keys; --",
    "{\"_type_\":\"personal\"}",
    "%s $1 ?1 \\x00 \\\\",
    "e\u{301}",
    "\u{e9}",
    "\u{202e}\u{feff}\u{10ffff}",
    " ",
    "\u{1f469}\u{200d}\u{1f4bb}",
];

async fn hostile_subjects_are_kept_apart(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let longest = "\u{10ffff}".repeat(63) + "abc";
    let subjects: Vec<Subject> =
        SUBJECTS.into_iter().chain([&*longest]).map(|text| Subject::new(text).unwrap()).collect();
    let event = |subject: &Subject| placed(Personal::new(subject.clone(), format!("of {subject}")));
    let eraser = keys(place.open().await);
    orders(&log, &eraser).append(ID, Expected::New, subjects.iter().map(event)).await.unwrap();
    for (erased, subject) in subjects.iter().enumerate() {
        eraser.erase(subject.clone(), subject.as_str()).await.unwrap();
        let reader = orders(&log, &keys(place.open().await));
        let read = reader.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
        for (index, (read, subject)) in read.into_iter().zip(&subjects).enumerate() {
            let expected = match index <= erased {
                true => placed(Personal::Erased { subject: subject.clone() }),
                false => event(subject),
            };
            assert_eq!(read.payload, expected, "{subject:?}");
        }
    }
    let store = place.open().await;
    let mut expected = subjects;
    expected.sort_unstable();
    let erasures = store.select_erasures(None, 100).await.unwrap();
    assert!(erasures.iter().map(|erasure| &erasure.subject).eq(&expected));
    assert!(erasures.iter().all(|erasure| erasure.erased_by == erasure.subject.as_str()));
}

#[tokio::test]
async fn invalid_subjects_are_refused_wherever_they_come_from() {
    let keys = keys(es_personal::MemoryKeyStore::new());
    let mapper = Mapper::new(transcoder(&keys));
    for text in ["", "\0", "a\u{0}b", "line\nbreak", "\u{85}", &"x".repeat(256), &"\u{e9}".repeat(5_000)] {
        assert_eq!(Subject::new(text).unwrap_err().kind(), ErrorKind::Data);
        let subject = serde_json::to_string(text).unwrap();
        let state = format!(
            r#"{{"timestamp":{{"_type_":"datetime_iso","_data_":"1970-01-01T00:00:00+00:00"}},"item":"book","receiver":null,
            "watchers":[],"buyer":{{"_type_":"personal","_data_":{{"subject":{subject},"sealed":"AQ=="}}}}}}"#
        );
        let error = mapper.decode_state::<OrderEvent>("shop:Order.Placed", &state).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().len() < 1_000, "{error}");
    }
}

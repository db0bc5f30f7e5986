//! Personal values with each key store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod bulk;
mod erasure;
mod faults;
mod format;
mod notification;
mod processes;
mod rewrapping;
mod scan;
mod sealed;
mod stores;
mod values;

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use es_core::{EventStore, Mapper, uuid::Uuid};
use es_crypto::{AesKey, KeyRing};
use es_derive::Event;
use es_personal::{KeyStore, Personal, Subject, SubjectKeys};
use es_popo::PopoApplicationRecorder;
use es_transcode::JsonTranscoder;
use serde::{Deserialize, Serialize};

/// A value that is a structure, with a value that JSON lacks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
    #[serde(with = "es_transcode::serde_with::As::<es_transcode::Registered>")]
    id: Uuid,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed {
        item: String,
        buyer: Personal<String>,
        receiver: Option<Personal<Address>>,
        watchers: Vec<Personal<String>>,
    },
    #[event(version = 2, upcast(1 = RenamedV1))]
    Renamed {
        first: Personal<String>,
        last: Personal<String>,
    },
    Shipped,
}

/// The layout before first and last names were separate.
#[derive(Deserialize)]
struct RenamedV1 {
    name: Personal<String>,
}

impl From<RenamedV1> for OrderEvent {
    fn from(RenamedV1 { name }: RenamedV1) -> Self {
        let subject = name.subject().clone();
        let Some(name) = name.into_value() else {
            return Self::Renamed {
                first: Personal::Erased { subject: subject.clone() },
                last: Personal::Erased { subject },
            };
        };
        let (first, last) = name.split_once(' ').unwrap();
        Self::Renamed {
            first: Personal::new(subject.clone(), first.to_owned()),
            last: Personal::new(subject, last.to_owned()),
        }
    }
}

fn subject(number: u128) -> Subject {
    Subject::from(Uuid::from_u128(number))
}

fn name(number: u128, name: &str) -> Personal<String> {
    Personal::new(subject(number), name.to_owned())
}

fn placed(buyer: Personal<String>) -> OrderEvent {
    OrderEvent::Placed { item: "book".to_owned(), buyer, receiver: None, watchers: Vec::new() }
}

fn ring() -> KeyRing {
    KeyRing::builder().key(1, AesKey::from_bytes(&[7; 32]).unwrap()).build().unwrap()
}

fn keys(store: impl KeyStore) -> SubjectKeys {
    SubjectKeys::new(store, ring())
}

/// The keys of another process, which expire soon.
fn short_lived_keys(store: impl KeyStore) -> SubjectKeys {
    let capacity = NonZeroUsize::new(100).unwrap();
    SubjectKeys::with_cache(store, ring(), capacity, Duration::from_millis(300))
}

fn transcoder(keys: &SubjectKeys) -> JsonTranscoder {
    let mut transcoder = JsonTranscoder::new();
    keys.register::<String>(&mut transcoder);
    keys.register::<Address>(&mut transcoder);
    transcoder
}

type Orders = EventStore<Arc<PopoApplicationRecorder>, JsonTranscoder>;

/// An event store on a log.
fn orders(log: &Arc<PopoApplicationRecorder>, keys: &SubjectKeys) -> Orders {
    EventStore::new(Arc::clone(log), Mapper::new(transcoder(keys)))
}

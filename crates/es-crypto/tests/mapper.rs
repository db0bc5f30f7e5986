//! An event that cannot be decrypted is an error that names it, once it passes through a mapper.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use es_core::{
    Bytes, DomainEvent, ErrorKind, Event, Mapper, PersistenceError, StateReader, StoredEvent, Topic,
    Transcoder,
    serde::{self, Deserializer, Serialize, Serializer, de::DeserializeSeed, ser::SerializeMap},
    time::OffsetDateTime,
    uuid::Uuid,
};
use es_crypto::AesCipher;

const TOPIC: Topic = Topic::from_static("bank:Account.Opened");

#[derive(Debug, PartialEq, serde::Deserialize)]
struct Opened {
    owner: String,
}

impl Event for Opened {
    const TOPICS: &'static [Topic] = &[TOPIC];

    fn topic(&self) -> Topic {
        TOPIC
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        state.serialize_entry("owner", &self.owner)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if TOPIC == *topic { state.decode() } else { Err(state.unknown_topic()) }
    }
}

/// JSON without transcodings; enough to give the mapper something to encrypt.
#[derive(Debug)]
struct PlainJson;

impl Transcoder for PlainJson {
    fn encode<V: Serialize + ?Sized>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        serde_json::to_writer(out, value).map_err(|error| PersistenceError::data("JSON").with_source(error))
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, PersistenceError> {
        seed.deserialize(&mut serde_json::Deserializer::from_slice(bytes))
            .map_err(|error| PersistenceError::data("JSON").with_source(error))
    }

    fn serialize_timestamp<S: Serializer>(
        &self,
        at: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(at.unix_timestamp())
    }

    fn deserialize_timestamp<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        let seconds = <i64 as serde::Deserialize>::deserialize(deserializer)?;
        OffsetDateTime::from_unix_timestamp(seconds).map_err(serde::de::Error::custom)
    }
}

fn mapper(key: &str) -> Mapper<PlainJson> {
    Mapper::new(PlainJson).with_cipher(AesCipher::from_base64(key).unwrap())
}

fn event() -> DomainEvent<Opened> {
    let at = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
    DomainEvent::at(Uuid::from_u128(7), 3, at, Opened { owner: "Ada".to_owned() })
}

fn assert_named(mapper: &Mapper<PlainJson>, stored: &StoredEvent, key: &str) {
    let error = mapper.to_domain_event::<Opened>(stored).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let message = error.to_string();
    let context =
        "event \"bank:Account.Opened\", version 3 of originator 00000000-0000-0000-0000-000000000007: ";
    assert!(message.starts_with(context), "{message}");
    let shown = format!("{error} {error:?} {mapper:?}");
    assert!(!shown.contains(key) && !shown.contains("Ada"), "{shown}");
}

#[test]
fn a_decryption_error_names_the_event() {
    for num_bytes in [16, 24, 32] {
        let key = AesCipher::create_key(num_bytes).unwrap();
        let right = mapper(&key);
        let stored = right.to_stored_event(&event()).unwrap();
        assert_eq!(right.to_domain_event(&stored).unwrap(), event());

        let other = AesCipher::create_key(num_bytes).unwrap();
        assert_named(&mapper(&other), &stored, &other);

        let truncated = StoredEvent { state: stored.state.slice(..stored.state.len() - 1), ..stored.clone() };
        assert_named(&right, &truncated, &key);

        let empty = StoredEvent { state: Bytes::new(), ..stored.clone() };
        assert_named(&right, &empty, &key);

        let mut flipped = stored.state.to_vec();
        flipped[30] ^= 4;
        assert_named(&right, &StoredEvent { state: flipped.into(), ..stored }, &key);
    }
}

//! A transcoder, two events, and recorders that do not wait.

// Each test binary compiles this module and uses some of it.
#![allow(dead_code)]

use es_core::{
    Bytes, DomainEvent, Event, PersistenceError, StateReader, StoredEvent, Topic, Transcoder,
    serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{DeserializeSeed, Error},
        ser::SerializeMap,
    },
    time::OffsetDateTime,
    uuid::Uuid,
};
use futures_util::FutureExt;

pub(crate) const ID: Uuid = Uuid::from_u128(0xa);

/// JSON, with the timestamp as whole seconds.
#[derive(Clone, Debug)]
pub(crate) struct Json;

impl Transcoder for Json {
    fn encode<V: Serialize + ?Sized>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        serde_json::to_writer(out, value)
            .map_err(|error| PersistenceError::data("the value has no JSON").with_source(error))
    }

    fn decode<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, PersistenceError> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let value = seed.deserialize(&mut deserializer);
        value
            .and_then(|value| deserializer.end().map(|()| value))
            .map_err(|error| PersistenceError::data("the state is not what was expected").with_source(error))
    }

    fn serialize_timestamp<S: Serializer>(
        &self,
        timestamp: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(timestamp.unix_timestamp())
    }

    fn deserialize_timestamp<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        OffsetDateTime::from_unix_timestamp(i64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An event with attributes, at class version 2: version 1 had no currency.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(crate = "es_core::serde")]
pub(crate) struct Credited {
    pub(crate) amount: i64,
    pub(crate) currency: String,
}

impl Credited {
    pub(crate) const TOPIC: Topic = Topic::from_static("bank:Account.Credited");
}

#[derive(Deserialize)]
#[serde(crate = "es_core::serde")]
struct CreditedVersion1 {
    amount: i64,
}

impl Event for Credited {
    const TOPICS: &[Topic] = &[Self::TOPIC];

    fn topic(&self) -> Topic {
        Self::TOPIC
    }

    fn class_version(&self) -> u32 {
        2
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        state.serialize_entry("amount", &self.amount)?;
        state.serialize_entry("currency", &self.currency)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if topic != Self::TOPIC.as_str() {
            return Err(state.unknown_topic());
        }
        match state.class_version()? {
            1 => {
                let CreditedVersion1 { amount } = state.decode()?;
                Ok(Self { amount, currency: "EUR".to_owned() })
            }
            2 => state.decode(),
            newer => Err(state.unsupported_class_version(newer)),
        }
    }
}

/// An event without attributes, at class version 1.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(crate = "es_core::serde")]
pub(crate) struct Closed {}

impl Closed {
    pub(crate) const TOPIC: Topic = Topic::from_static("bank:Account.Closed");
}

impl Event for Closed {
    const TOPICS: &[Topic] = &[Self::TOPIC];

    fn topic(&self) -> Topic {
        Self::TOPIC
    }

    fn encode<M: SerializeMap>(&self, _: &mut M) -> Result<(), M::Error> {
        Ok(())
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if topic == Self::TOPIC.as_str() { state.decode() } else { Err(state.unknown_topic()) }
    }
}

pub(crate) fn credited(amount: i64) -> Credited {
    Credited { amount, currency: "CHF".to_owned() }
}

/// An event with a timestamp that the transcoder represents exactly.
pub(crate) fn at<E>(originator_version: i64, payload: E) -> DomainEvent<E> {
    let timestamp = OffsetDateTime::from_unix_timestamp(1_700_000_000).expect("it is in range");
    DomainEvent::at(ID, originator_version, timestamp, payload)
}

pub(crate) fn stored(topic: Topic, state: &[u8]) -> StoredEvent {
    StoredEvent { originator_id: ID, originator_version: 3, topic, state: Bytes::copy_from_slice(state) }
}

/// The result of a future that does not wait, such as those of recorders in memory.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("recorders in memory do not wait")
}

/// The error and its causes, as a person reads them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

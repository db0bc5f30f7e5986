//! Bare serde_json, which writes and reads the same bytes that the mapper stores, and the event of both.

use std::{borrow::Cow, str::FromStr};

use anyhow::{Result, ensure};
use bigdecimal::BigDecimal;
use es_core::{DomainEvent, Event, PersistenceError, StateReader, Topic, Transcoder, encode_attributes};
use es_transcode::Registered;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::Error as _,
    ser::{Error as _, SerializeMap},
};
use serde_with::serde_as;
use time::{
    OffsetDateTime,
    format_description::BorrowedFormatItem,
    macros::{datetime, format_description},
};
use uuid::Uuid;

const TOPIC: Topic = Topic::from_static("bank:Account.Transferred");
const ISO: &[BorrowedFormatItem<'_>] = format_description!(
    "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6][offset_hour sign:mandatory]:[offset_minute]"
);
/// The capacity for the state, as in the mapper.
const STATE_CAPACITY: usize = 512;

/// The event's data: one of each value that JSON lacks, and a text.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Transferred {
    #[serde_as(as = "Registered")]
    transaction_id: Uuid,
    #[serde_as(as = "Registered")]
    booked_at: OffsetDateTime,
    #[serde_as(as = "Registered")]
    amount: BigDecimal,
    description: String,
}

/// The event to write and read.
pub(crate) fn transferred() -> DomainEvent<Transferred> {
    let payload = Transferred {
        transaction_id: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        booked_at: datetime!(2024-02-29 12:34:56.789012 UTC),
        amount: BigDecimal::new(123_456.into(), 2),
        description: "Invoice 2024-0815, thank you for shopping at Müller & Söhne".into(),
    };
    let timestamp = datetime!(2024-02-29 12:35:00.000123 UTC);
    DomainEvent::at(Uuid::from_u128(1), 7, timestamp, payload)
}

impl Event for Transferred {
    const TOPICS: &[Topic] = &[TOPIC];

    fn topic(&self) -> Topic {
        TOPIC
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        encode_attributes(self, state)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if TOPIC == *topic { state.decode() } else { Err(state.unknown_topic()) }
    }
}

/// Writes the event. Its values are turned into text by their own libraries.
pub(crate) fn write(event: &DomainEvent<Transferred>) -> Result<Vec<u8>> {
    let Transferred { transaction_id, booked_at, amount, description } = &event.payload;
    let flat = Flat {
        timestamp: Tagged::new("datetime_iso", Iso(event.timestamp)),
        transaction_id: Tagged::new("uuid_hex", Hexadecimal(*transaction_id)),
        booked_at: Tagged::new("datetime_iso", Iso(*booked_at)),
        amount: Tagged::new("decimal_str", Plain(Cow::Borrowed(amount))),
        description: Cow::Borrowed(description),
    };
    let mut bytes = Vec::with_capacity(STATE_CAPACITY);
    serde_json::to_writer(&mut bytes, &flat)?;
    Ok(bytes)
}

/// Reads the event.
pub(crate) fn read(bytes: &[u8]) -> Result<(OffsetDateTime, Transferred)> {
    let flat: Typed<'_> = serde_json::from_slice(bytes)?;
    let payload = Transferred {
        transaction_id: flat.transaction_id.named("uuid_hex")?.0,
        booked_at: flat.booked_at.named("datetime_iso")?.0,
        amount: flat.amount.named("decimal_str")?.0.into_owned(),
        description: flat.description.into_owned(),
    };
    Ok((flat.timestamp.named("datetime_iso")?.0, payload))
}

/// The event with its values already turned into text: the cost of serde_json alone.
pub(crate) struct Text<'a>(Flat<'a, &'a str, &'a str, &'a str>);

impl<'a> Text<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self(serde_json::from_slice(bytes)?))
    }

    pub(crate) fn write(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(STATE_CAPACITY);
        serde_json::to_writer(&mut bytes, &self.0)?;
        Ok(bytes)
    }
}

type Typed<'a> = Flat<'a, Hexadecimal, Iso, Plain<'a>>;

#[derive(Serialize, Deserialize)]
struct Flat<'a, U, T, D> {
    #[serde(borrow)]
    timestamp: Tagged<'a, T>,
    transaction_id: Tagged<'a, U>,
    booked_at: Tagged<'a, T>,
    amount: Tagged<'a, D>,
    description: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct Tagged<'a, D> {
    #[serde(rename = "_type_")]
    name: &'a str,
    #[serde(rename = "_data_")]
    data: D,
}

impl<'a, D> Tagged<'a, D> {
    fn new(name: &'a str, data: D) -> Self {
        Self { name, data }
    }

    fn named(self, name: &str) -> Result<D> {
        ensure!(self.name == name, "found {:?}, expected {name:?}", self.name);
        Ok(self.data)
    }
}

struct Hexadecimal(Uuid);

impl Serialize for Hexadecimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.simple().encode_lower(&mut Uuid::encode_buffer()))
    }
}

impl<'de> Deserialize<'de> for Hexadecimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Uuid::try_parse(<&str>::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

struct Iso(OffsetDateTime);

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.format(ISO).map_err(S::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Iso {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        OffsetDateTime::parse(<&str>::deserialize(deserializer)?, ISO).map(Self).map_err(D::Error::custom)
    }
}

struct Plain<'a>(Cow<'a, BigDecimal>);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Plain<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let amount = BigDecimal::from_str(<&str>::deserialize(deserializer)?);
        amount.map(Cow::Owned).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use es_core::Mapper;
    use es_transcode::JsonTranscoder;

    use super::{Text, Transferred, read, transferred, write};

    #[test]
    fn serde_json_writes_and_reads_the_bytes_of_the_mapper() {
        let event = transferred();
        let mapper = Mapper::new(JsonTranscoder::new());
        let stored = mapper.to_stored_event(&event).unwrap();
        assert_eq!(str::from_utf8(&stored.state), str::from_utf8(&write(&event).unwrap()));
        assert_eq!(Text::read(&stored.state).unwrap().write().unwrap(), stored.state);
        assert_eq!(mapper.to_domain_event::<Transferred>(&stored).unwrap(), event);
        assert_eq!(read(&stored.state).unwrap(), (event.timestamp, event.payload));
    }
}

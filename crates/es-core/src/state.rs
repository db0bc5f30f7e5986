//! The reader of a stored state: a flat object, decoded in one pass.

use std::{borrow::Cow, error::Error, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, IgnoredAny, MapAccess, Visitor,
        value::{BorrowedStrDeserializer, CowStrDeserializer, MapAccessDeserializer},
    },
};
use time::OffsetDateTime;

use crate::{EventContext, Metadata, PersistenceError, Transcoder};

const TIMESTAMP: &str = "timestamp";
pub(crate) const CLASS_VERSION: &str = "class_version";
pub(crate) const METADATA: &str = "_metadata_";

/// Reads the state of a stored event.
///
/// It takes the common attributes (timestamp, class version and metadata) out of the flat object, and passes
/// the others to the event's own type, in one pass and without an intermediate tree.
#[derive(Debug)]
pub struct StateReader<'a, T> {
    bytes: &'a [u8],
    context: EventContext<'a>,
    transcoder: &'a T,
    expected_version: u32,
    timestamp: Option<OffsetDateTime>,
    metadata: Metadata,
}

impl<'a, T: Transcoder> StateReader<'a, T> {
    pub(crate) fn new(bytes: &'a [u8], context: EventContext<'a>, transcoder: &'a T) -> Self {
        Self { bytes, context, transcoder, expected_version: 1, timestamp: None, metadata: Metadata::new() }
    }

    /// Returns the class version of the state; 1 if the state has none.
    ///
    /// Costs a pass over the state: call it only if a topic has more than one class version.
    /// [`decode`](Self::decode) then accepts a state of this version.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the state is not an object.
    pub fn class_version(&mut self) -> Result<u32, PersistenceError> {
        self.expected_version = self.written_version()?;
        Ok(self.expected_version)
    }

    /// Decodes the attributes of the event.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the state is not a `P`, or has another class version than 1, or
    /// than [`class_version`](Self::class_version) returned.
    pub fn decode<P: Deserialize<'a>>(&mut self) -> Result<P, PersistenceError> {
        let mut common = Common { timestamp: None, class_version: 1, metadata: Metadata::new() };
        let seed =
            Envelope { transcoder: self.transcoder, common: &mut common, attributes: PhantomData::<P> };
        let decoded = self.transcoder.decode(seed, self.bytes);
        if let Err(error) = decoded {
            // Another class version explains the failure better than a missing attribute.
            return Err(match self.written_version() {
                Ok(version) if version != self.expected_version => self.unsupported_class_version(version),
                _ => error,
            });
        }
        if common.class_version != self.expected_version {
            return Err(self.unsupported_class_version(common.class_version));
        }
        self.timestamp = common.timestamp;
        self.metadata = common.metadata;
        decoded
    }

    /// Converts a state of an older class version to a later one.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the conversion fails, with its error as the source; a conversion
    /// by [`From`] does not fail.
    pub fn upcast<Old, New>(&self, old: Old) -> Result<New, PersistenceError>
    where
        Old: TryInto<New>,
        Old::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        old.try_into().map_err(|error| {
            let message = format!("the state of class version {} cannot be upcast", self.expected_version);
            PersistenceError::data(message).with_source(error).with_event(&self.context)
        })
    }

    /// Returns the error for a topic that the event type does not have.
    pub fn unknown_topic(&self) -> PersistenceError {
        PersistenceError::programming(format!("no event type is known by topic {:?}", self.context.topic))
            .with_event(&self.context)
    }

    /// Returns the error for a class version that this program does not know.
    pub fn unsupported_class_version(&self, version: u32) -> PersistenceError {
        PersistenceError::data(format!("class version {version} is not known to this program"))
            .with_event(&self.context)
    }

    /// Returns timestamp and metadata; decodes them if the event's type has no attributes and read nothing.
    pub(crate) fn into_common(mut self) -> Result<(OffsetDateTime, Metadata), PersistenceError> {
        if self.timestamp.is_none() {
            self.decode::<IgnoredAny>()?;
        }
        let timestamp = self.timestamp.ok_or_else(|| PersistenceError::data("the state has no timestamp"))?;
        Ok((timestamp, self.metadata))
    }

    fn written_version(&self) -> Result<u32, PersistenceError> {
        #[derive(Deserialize)]
        #[serde(expecting = "the state of an event, an object")]
        struct Versioned {
            #[serde(default = "one")]
            class_version: u32,
        }
        const fn one() -> u32 {
            1
        }
        self.transcoder.decode(PhantomData::<Versioned>, self.bytes).map(|state| state.class_version)
    }
}

/// The common attributes of all events.
struct Common {
    timestamp: Option<OffsetDateTime>,
    class_version: u32,
    metadata: Metadata,
}

/// Decodes the flat object: the common attributes into `common`, the others into a `P`.
struct Envelope<'e, T, P> {
    transcoder: &'e T,
    common: &'e mut Common,
    attributes: PhantomData<P>,
}

impl<'de, T: Transcoder, P: Deserialize<'de>> DeserializeSeed<'de> for Envelope<'_, T, P> {
    type Value = P;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<P, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Transcoder, P: Deserialize<'de>> Visitor<'de> for Envelope<'_, T, P> {
    type Value = P;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of an event, an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<P, A::Error> {
        let own = OwnAttributes { map: &mut map, transcoder: self.transcoder, common: self.common };
        let attributes = P::deserialize(MapAccessDeserializer::new(own))?;
        // A type without attributes may have read no keys; the common attributes are among the rest.
        let mut rest = OwnAttributes { map: &mut map, transcoder: self.transcoder, common: self.common };
        while rest.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(attributes)
    }
}

/// The entries of the flat object without the common ones.
struct OwnAttributes<'e, A, T> {
    map: &'e mut A,
    transcoder: &'e T,
    common: &'e mut Common,
}

impl<'de, A: MapAccess<'de>, T: Transcoder> MapAccess<'de> for OwnAttributes<'_, A, T> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        while let Some(Key(key)) = self.map.next_key()? {
            match &*key {
                TIMESTAMP => {
                    let seed = TimestampSeed(self.transcoder);
                    self.common.timestamp = Some(self.map.next_value_seed(seed)?);
                }
                CLASS_VERSION => self.common.class_version = self.map.next_value()?,
                METADATA => self.common.metadata = self.map.next_value()?,
                _ => {
                    return match key {
                        Cow::Borrowed(key) => seed.deserialize(BorrowedStrDeserializer::new(key)),
                        owned => seed.deserialize(CowStrDeserializer::new(owned)),
                    }
                    .map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

struct TimestampSeed<'e, T>(&'e T);

impl<'de, T: Transcoder> DeserializeSeed<'de> for TimestampSeed<'_, T> {
    type Value = OffsetDateTime;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<OffsetDateTime, D::Error> {
        self.0.deserialize_timestamp(deserializer)
    }
}

/// A key, borrowed from the bytes where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(crate) struct Key<'k>(#[serde(borrow)] pub(crate) Cow<'k, str>);

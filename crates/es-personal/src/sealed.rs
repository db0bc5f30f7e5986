//! Events that are sealed as a whole, with the key of one subject.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
};

use es_core::encode_attributes;
use es_transcode::{JsonTranscoder, RawJson};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor,
        value::{MapAccessDeserializer, StringDeserializer},
    },
    ser::{Error as _, SerializeMap},
};

use crate::{Personal, Subject, SubjectKeys, transcoding::PersonalTranscoding};

/// The only attribute of a sealed event, beside those that every event has.
const ATTRIBUTE: &str = "_personal_";

impl SubjectKeys {
    /// Registers the transcoding of events that are [sealed](crate#sealed-events) as a whole.
    pub fn register_events(&self, transcoder: &mut JsonTranscoder) {
        transcoder.register(PersonalTranscoding::<Attributes>::new(self.clone()));
    }
}

/// Writes the attributes of an event as one personal value of a subject: the implementation of
/// [`Event::encode`](es_core::Event::encode) for an event that is sealed as a whole.
///
/// # Errors
/// If the subject is invalid; as [`encode_attributes`]; as for a [`Personal`] value.
pub fn encode_sealed<V, M>(
    subject: impl TryInto<Subject, Error: Display>,
    attributes: &V,
    state: &mut M,
) -> Result<(), M::Error>
where
    V: Serialize + ?Sized,
    M: SerializeMap,
{
    let subject: Subject = subject.try_into().map_err(M::Error::custom)?;
    let attributes = Attributes(RawJson::encode(&Flat(attributes))?);
    state.serialize_entry(ATTRIBUTE, &Personal::new(subject, attributes))
}

/// The decoded attributes of an event that is sealed as a whole: what
/// [`StateReader::decode`](es_core::StateReader::decode) returns for it.
///
/// A state without a personal value in their place was written before the event was sealed, and is decoded
/// as it is.
///
/// `Debug` does not show the attributes.
//
// Exhaustive: the attributes are there or not.
pub enum Sealed<A> {
    /// The attributes.
    Attributes(A),
    /// The subject of the event was erased.
    Erased(Subject),
}

impl<A> fmt::Debug for Sealed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attributes(_) => f.debug_tuple("Attributes").finish_non_exhaustive(),
            Self::Erased(subject) => f.debug_tuple("Erased").field(subject).finish(),
        }
    }
}

impl<'de, A: DeserializeOwned> Deserialize<'de> for Sealed<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SealedVisitor(PhantomData))
    }
}

struct SealedVisitor<A>(PhantomData<A>);

impl<'de, A: DeserializeOwned> Visitor<'de> for SealedVisitor<A> {
    type Value = Sealed<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the attributes of an event")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Sealed<A>, M::Error> {
        let first: Option<String> = map.next_key()?;
        if first.as_deref() != Some(ATTRIBUTE) {
            let plain = MapAccessDeserializer::new(FromFirst { first, map });
            return A::deserialize(plain).map(Sealed::Attributes);
        }
        let sealed: Personal<Attributes> = map.next_value()?;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        match sealed {
            Personal::Value { value: Attributes(json), .. } => json.decode().map(Sealed::Attributes),
            Personal::Erased { subject } => Ok(Sealed::Erased(subject)),
        }
    }
}

/// A map whose first key was read already.
struct FromFirst<M> {
    first: Option<String>,
    map: M,
}

impl<'de, M: MapAccess<'de>> MapAccess<'de> for FromFirst<M> {
    type Error = M::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, M::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(StringDeserializer::new(first)).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, M::Error> {
        self.map.next_value_seed(seed)
    }
}

/// The attributes of an event as one JSON object.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Attributes(RawJson);

/// Serializes a struct or a map as the attributes of an event, with the same checks of their names.
struct Flat<'a, V: ?Sized>(&'a V);

impl<V: Serialize + ?Sized> Serialize for Flat<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        encode_attributes(self.0, &mut map)?;
        map.end()
    }
}

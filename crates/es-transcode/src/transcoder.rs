//! The transcoder.

use std::{str, sync::Arc};

use es_core::{PersistenceError, Transcoder, Transcoding};
use serde::{Deserializer, Serialize, Serializer, de::DeserializeSeed};
use serde_with::{DeserializeAs, SerializeAs};
use time::OffsetDateTime;

use crate::{
    DatetimeAsIso, DecimalAsStr, NaiveDatetimeAsIso, RegisteredOnly, UuidAsHex, python_style,
    registry::Registry, scope::Scope, types,
};

/// Writes and reads JSON as the Python `eventsourcing` library does.
///
/// Values that JSON lacks are written by registered transcodings: see [`Registered`](crate::Registered) for
/// fields of such types and the [crate documentation](crate) for a transcoding of one's own. Cloning is
/// cheap; a transcoding that is registered with a clone is not registered with the original.
#[derive(Clone, Debug)]
pub struct JsonTranscoder {
    registry: Arc<Registry>,
}

impl JsonTranscoder {
    /// A transcoder with the transcodings of the Python library ([`UuidAsHex`], [`DatetimeAsIso`],
    /// [`NaiveDatetimeAsIso`], [`DecimalAsStr`]) and those of [`AsText`](crate::AsText).
    pub fn new() -> Self {
        let mut transcoder = Self::empty();
        transcoder.register(UuidAsHex);
        transcoder.register(DatetimeAsIso);
        transcoder.register(NaiveDatetimeAsIso);
        transcoder.register(DecimalAsStr);
        types::register(Arc::make_mut(&mut transcoder.registry));
        transcoder
    }

    /// A transcoder without transcodings.
    ///
    /// The timestamps of events need one: register a transcoding of
    /// [`OffsetDateTime`](time::OffsetDateTime) before mapping events.
    pub fn empty() -> Self {
        Self { registry: Arc::default() }
    }

    /// Registers a transcoding: it is found by its type when a value is written, by its name when
    /// one is read.
    ///
    /// It takes the place of one that is registered for the same type. If that has another name, what
    /// was written under that name can still be read.
    pub fn register<C: Transcoding>(&mut self, transcoding: C) {
        Arc::make_mut(&mut self.registry).register(transcoding);
    }
}

impl Default for JsonTranscoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Transcoder for JsonTranscoder {
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for a value of a type that is not registered,
    /// [`Data`](es_core::ErrorKind::Data) for a value that JSON cannot carry, such as NaN, or values
    /// nested deeper than 127 levels. `out` is then as it was before.
    fn encode<V: Serialize + ?Sized>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        let call = Scope::enter(Arc::clone(&self.registry));
        let before = out.len();
        let written = python_style::write(value, &call.scope, out);
        call.finish(written, "the value cannot be written as JSON").inspect_err(|_| out.truncate(before))
    }

    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for a name that is not registered,
    /// [`Data`](es_core::ErrorKind::Data) when the bytes are not JSON, or hold something else than the
    /// seed expects.
    fn decode<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, PersistenceError> {
        let json = str::from_utf8(bytes).map_err(|error| {
            let message = "the bytes are not UTF-8 text: if they are encrypted or compressed, no cipher or compressor is \
                           configured";
            PersistenceError::data(message).with_source(error)
        })?;
        let call = Scope::enter(Arc::clone(&self.registry));
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let value = seed.deserialize(&mut deserializer);
        let value = value.and_then(|value| deserializer.end().map(|()| value));
        call.finish(value, "the bytes are not the JSON that is expected")
    }

    fn serialize_timestamp<S: Serializer>(
        &self,
        timestamp: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        RegisteredOnly::serialize_as(timestamp, serializer)
    }

    fn deserialize_timestamp<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error> {
        RegisteredOnly::deserialize_as(deserializer)
    }

    async fn load_missing(&self) -> Result<(), PersistenceError> {
        self.registry.load_missing().await
    }
}

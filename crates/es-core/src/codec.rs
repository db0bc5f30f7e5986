//! The parts of a mapper: transcoder, compressor, cipher.

use std::{
    fmt::Debug,
    future::{Future, ready},
    sync::Arc,
};

use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed},
};
use time::OffsetDateTime;

use crate::{BoxFuture, EventContext, PersistenceError};

/// Encodes values to bytes and decodes them, by serde.
///
/// A transcoder defines the format, and the representation of values that the format lacks. The methods
/// are generic, so that events are encoded without an intermediate tree.
pub trait Transcoder: Debug + Send + Sync + 'static {
    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    /// If the value, or a value in it, cannot be represented in this format.
    fn encode<V: Serialize + ?Sized>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError>;

    /// Decodes one value from `bytes`, all of which must belong to it.
    ///
    /// # Errors
    /// If the bytes are not of this format, or not what the seed expects.
    fn decode<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, PersistenceError>;

    /// Writes the timestamp of an event; called only within [`encode`](Self::encode).
    ///
    /// # Errors
    /// If the serializer fails.
    fn serialize_timestamp<S: Serializer>(
        &self,
        timestamp: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error>;

    /// Reads the timestamp of an event; called only within [`decode`](Self::decode).
    ///
    /// # Errors
    /// If the value is not a timestamp.
    fn deserialize_timestamp<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error>;

    /// Loads what calls lacked that failed with an [unloaded](PersistenceError::is_unloaded) error, such as
    /// keys. The calls may then be repeated.
    ///
    /// Called by the asynchronous methods of [`Mapper`](crate::Mapper). By default there is nothing to load.
    ///
    /// # Errors
    /// If it cannot be loaded.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn load_missing(&self) -> impl Future<Output = Result<(), PersistenceError>> + Send {
        ready(Ok(()))
    }
}

/// The representation of a type that a transcoder's format lacks.
///
/// A representation may contain further values that have transcodings.
pub trait Transcoding: Debug + Send + Sync + 'static {
    /// The represented type.
    type Value: 'static;
    /// The encoded representation; may borrow from the value.
    type Encoded<'a>: Serialize
    where
        Self: 'a;
    /// The decoded representation.
    type Decoded: DeserializeOwned + 'static;

    /// Returns the name that marks the representation in the stored bytes. It must never change.
    fn name(&self) -> &str;

    /// Returns the representation of a value.
    ///
    /// # Errors
    /// If this value has none.
    fn encode<'a>(&'a self, value: &'a Self::Value) -> Result<Self::Encoded<'a>, PersistenceError>;

    /// Returns the value of a representation.
    ///
    /// # Errors
    /// If the representation is not valid.
    fn decode(&self, representation: Self::Decoded) -> Result<Self::Value, PersistenceError>;

    /// Loads what this transcoding lacked: [`Transcoder::load_missing`].
    ///
    /// # Errors
    /// If it cannot be loaded.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn load_missing(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(Ok(())))
    }
}

/// Encrypts the state of events.
pub trait Cipher: Debug + Send + Sync + 'static {
    /// Appends the encrypted `plaintext` to `out`.
    ///
    /// # Errors
    /// If encryption fails; the error contains neither key nor plaintext.
    fn encrypt(
        &self,
        context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError>;

    /// Appends the decrypted `ciphertext` to `out`.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if it was encrypted with another key, or has been changed.
    fn decrypt(
        &self,
        context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError>;
}

/// Compresses the state of events.
pub trait Compressor: Debug + Send + Sync + 'static {
    /// Appends the compressed `data` to `out`.
    ///
    /// # Errors
    /// If compression fails.
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError>;

    /// Appends the decompressed `data` to `out`, never more bytes than the compressor's limit.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if it is malformed, truncated, or larger than the limit.
    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError>;
}

impl<C: Cipher + ?Sized> Cipher for Arc<C> {
    fn encrypt(
        &self,
        context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        (**self).encrypt(context, plaintext, out)
    }

    fn decrypt(
        &self,
        context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        (**self).decrypt(context, ciphertext, out)
    }
}

impl<C: Compressor + ?Sized> Compressor for Arc<C> {
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        (**self).compress(data, out)
    }

    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        (**self).decompress(data, out)
    }
}

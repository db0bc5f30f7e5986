//! What the mapper is made of: transcoder, compressor, cipher.

use std::fmt::Debug;

use serde::{
    Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{PersistenceError, Topic};

/// Turns values into bytes and back.
///
/// serde does the work; a transcoder says what the bytes look like and what becomes of values that
/// its format lacks. Generic, because typed events pass through without an intermediate tree.
pub trait Transcoder: Debug + Send + Sync + 'static {
    /// Appends the bytes of `value` to `out`.
    ///
    /// # Errors
    /// When the value, or one inside it, cannot be written in this format.
    fn encode<V: Serialize + ?Sized>(&self, value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError>;

    /// Reads one value, and nothing after it, from `bytes`.
    ///
    /// # Errors
    /// When the bytes are not of this format or hold something else than the seed expects.
    fn decode<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        bytes: &'de [u8],
    ) -> Result<S::Value, PersistenceError>;

    /// Writes the timestamp of an event; called only within [`encode`](Self::encode).
    ///
    /// # Errors
    /// When the serializer fails.
    fn serialize_timestamp<S: Serializer>(
        &self,
        timestamp: &OffsetDateTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error>;

    /// Reads the timestamp of an event; called only within [`decode`](Self::decode).
    ///
    /// # Errors
    /// When there is something else.
    fn deserialize_timestamp<'de, D: Deserializer<'de>>(
        &self,
        deserializer: D,
    ) -> Result<OffsetDateTime, D::Error>;
}

/// How values of one type, which a transcoder's format lacks, are represented by values it has.
///
/// A representation may hold further values that have transcodings.
pub trait Transcoding: Debug + Send + Sync + 'static {
    /// The type that is represented.
    type Value: 'static;
    /// What is written for a value; may borrow from it.
    type Encoded<'a>: Serialize
    where
        Self: 'a;
    /// What is read back.
    type Decoded: DeserializeOwned + 'static;

    /// The name that marks the representation in the stored bytes. It must never change.
    fn name(&self) -> &str;

    /// The representation of a value.
    ///
    /// # Errors
    /// When this value has none.
    fn encode<'a>(&'a self, value: &'a Self::Value) -> Result<Self::Encoded<'a>, PersistenceError>;

    /// The value of a representation.
    ///
    /// # Errors
    /// When the representation is of no value.
    fn decode(&self, representation: Self::Decoded) -> Result<Self::Value, PersistenceError>;
}

/// Where an event stands: what a cipher may bind its bytes to, and what errors name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventContext<'a> {
    /// The aggregate.
    pub originator_id: Uuid,
    /// The position in the aggregate's sequence.
    pub originator_version: i64,
    /// The topic.
    pub topic: &'a Topic,
}

/// Makes the state of events unreadable to those without the key.
pub trait Cipher: Debug + Send + Sync + 'static {
    /// Appends the encrypted `plaintext` to `out`.
    ///
    /// # Errors
    /// When encryption fails; the error never shows key or text.
    fn encrypt(
        &self,
        context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError>;

    /// Appends the decrypted `ciphertext` to `out`.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) when it was not encrypted with this key, or changed since.
    fn decrypt(
        &self,
        context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError>;
}

/// Makes the state of events smaller.
pub trait Compressor: Debug + Send + Sync + 'static {
    /// Appends the compressed `data` to `out`.
    ///
    /// # Errors
    /// When compression fails.
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError>;

    /// Appends the decompressed `data` to `out`, never more bytes than the compressor's limit.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) when it is malformed, truncated, or larger than the limit.
    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError>;
}

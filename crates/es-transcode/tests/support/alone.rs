//! A value of a registered type, alone.

use es_core::{PersistenceError, Transcoder};
use es_transcode::{JsonTranscoder, RegisteredOnly, serde_with::serde_as};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(crate) struct Alone<T: 'static>(#[serde_as(as = "RegisteredOnly")] pub(crate) T);

pub(crate) fn encode<V: Serialize + ?Sized>(
    transcoder: &JsonTranscoder,
    value: &V,
) -> Result<String, PersistenceError> {
    let mut bytes = Vec::new();
    transcoder.encode(value, &mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

pub(crate) fn decode<V: DeserializeOwned>(
    transcoder: &JsonTranscoder,
    bytes: impl AsRef<[u8]>,
) -> Result<V, PersistenceError> {
    transcoder.decode(std::marker::PhantomData::<V>, bytes.as_ref())
}

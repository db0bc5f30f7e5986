//! Parts of a value as JSON text.

use std::{fmt, str};

use es_core::PersistenceError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    json_text::{MAX_DEPTH, depth},
    python_style,
    scope::Scope,
};

/// Appends a part of a value as JSON text, as the current call of a [`JsonTranscoder`](crate::JsonTranscoder)
/// writes it: for a transcoding that stores the part in another form, such as an encrypted one.
///
/// # Errors
/// Those of [`Transcoder::encode`](es_core::Transcoder::encode); a part of the text may have been appended
/// then. [`Programming`](es_core::ErrorKind::Programming) if this thread is not in a call.
pub fn encode_part<V: Serialize + ?Sized>(value: &V, out: &mut Vec<u8>) -> Result<(), PersistenceError> {
    let scope = Scope::current().ok_or_else(not_in_a_call)?;
    python_style::write(value, &scope, out)
        .map_err(|error| scope.failure.error(error, "a part of the value cannot be written as JSON"))
}

/// Reads a part of a value from the JSON text of [`encode_part`], as the current call of a
/// [`JsonTranscoder`](crate::JsonTranscoder) reads it.
///
/// # Errors
/// Those of [`Transcoder::decode`](es_core::Transcoder::decode);
/// [`Programming`](es_core::ErrorKind::Programming) if this thread is not in a call.
pub fn decode_part<V: DeserializeOwned>(json: &[u8]) -> Result<V, PersistenceError> {
    let scope = Scope::current().ok_or_else(not_in_a_call)?;
    let json = str::from_utf8(json).map_err(|error| {
        PersistenceError::data("a part of the value is not UTF-8 text").with_source(error)
    })?;
    serde_json::from_str(json)
        .map_err(|error| scope.failure.error(error, "a part of the value is not the JSON that is expected"))
}

fn not_in_a_call() -> PersistenceError {
    PersistenceError::programming(Scope::MISSING)
}

/// A part of a value as JSON text: for a part that is stored in another form, such as an encrypted one.
///
/// It is made and decoded within a call of a [`JsonTranscoder`](crate::JsonTranscoder), with its registered
/// transcodings. `Debug` does not show the text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Writes a value as the current call does.
    ///
    /// # Errors
    /// Any error of writing the value; if this thread is not in a call.
    pub fn encode<V: Serialize + ?Sized, E: serde::ser::Error>(value: &V) -> Result<Self, E> {
        let scope = Scope::current().ok_or_else(|| E::custom(Scope::MISSING))?;
        let mut json = Vec::new();
        python_style::write(value, &scope, &mut json).map_err(E::custom)?;
        let json = String::from_utf8(json).map_err(E::custom)?;
        RawValue::from_string(json).map(Self).map_err(E::custom)
    }

    /// Reads a value as the current call does.
    ///
    /// # Errors
    /// If the text is not a `V`.
    pub fn decode<V: DeserializeOwned, E: serde::de::Error>(&self) -> Result<V, E> {
        // A text within a text has a depth of its own for serde_json.
        if depth(self.0.get()) > MAX_DEPTH {
            return Err(E::custom("recursion limit exceeded"));
        }
        serde_json::from_str(self.0.get()).map_err(E::custom)
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawJson").finish_non_exhaustive()
    }
}

//! A part of a value as JSON text.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    json_text::{MAX_DEPTH, depth},
    python_style,
    scope::Scope,
};

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

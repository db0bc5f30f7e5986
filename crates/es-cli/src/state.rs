//! States: decrypted and decompressed to JSON, without knowledge of the event types, and encoded again.

use std::{borrow::Cow, sync::Arc};

use es_core::{Bytes, Cipher, Compressor, EventContext, PersistenceError, StoredEvent};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Decodes the states of stored events.
#[derive(Debug)]
pub(crate) struct StateDecoder {
    cipher: Option<Arc<dyn Cipher>>,
    compressor: Option<Arc<dyn Compressor>>,
}

impl StateDecoder {
    pub(crate) fn new(cipher: Option<Arc<dyn Cipher>>, compressor: Option<Arc<dyn Compressor>>) -> Self {
        Self { cipher, compressor }
    }

    /// Returns the state as JSON on one line, with its attributes in their order and its numbers as they are
    /// stored.
    ///
    /// # Errors
    /// If the state cannot be decrypted or decompressed, or is not JSON.
    pub(crate) fn json(&self, event: &StoredEvent) -> Result<Box<RawValue>, PersistenceError> {
        let bytes = self.plain(event)?;
        let not_json = |error| PersistenceError::data("the state is not JSON").with_source(error);
        // JSON has line breaks between its tokens only.
        let mut text: String = match String::from_utf8(bytes.into_owned()) {
            Ok(text) => text,
            Err(_) => return Err(PersistenceError::data("the state is not JSON: it is not UTF-8")),
        };
        if text.contains(['\n', '\r']) {
            text = text.replace(['\n', '\r'], " ");
        }
        RawValue::from_string(text).map_err(not_json)
    }

    /// Returns the decrypted and decompressed bytes of the state, after a check that they are a JSON object.
    ///
    /// # Errors
    /// As [`json`](Self::json).
    pub(crate) fn object<'e>(&self, event: &'e StoredEvent) -> Result<Cow<'e, [u8]>, PersistenceError> {
        let bytes = self.plain(event)?;
        let not_json = |error| PersistenceError::data("the state is not JSON").with_source(error);
        serde_json::from_slice::<IgnoredAny>(&bytes).map_err(not_json)?;
        match bytes.trim_ascii_start().first() {
            Some(b'{') => Ok(bytes),
            _ => Err(PersistenceError::data("the state is not a JSON object")),
        }
    }

    /// Returns the decrypted and decompressed bytes of the state.
    pub(crate) fn plain<'e>(&self, event: &'e StoredEvent) -> Result<Cow<'e, [u8]>, PersistenceError> {
        let mut bytes = Cow::Borrowed(&*event.state);
        if let Some(cipher) = &self.cipher {
            let mut decrypted = Vec::with_capacity(bytes.len());
            cipher.decrypt(&event.context(), &bytes, &mut decrypted)?;
            bytes = Cow::Owned(decrypted);
        }
        if let Some(compressor) = &self.compressor {
            let mut decompressed = Vec::with_capacity(4 * bytes.len());
            compressor.decompress(&bytes, &mut decompressed)?;
            bytes = Cow::Owned(decompressed);
        }
        Ok(bytes)
    }
}

/// Encodes states: compresses and encrypts them.
#[derive(Debug)]
pub(crate) struct StateEncoder {
    cipher: Option<Arc<dyn Cipher>>,
    compressor: Option<Arc<dyn Compressor>>,
}

impl StateEncoder {
    pub(crate) fn new(cipher: Option<Arc<dyn Cipher>>, compressor: Option<Arc<dyn Compressor>>) -> Self {
        Self { cipher, compressor }
    }

    /// Returns the encoded form of a plain state.
    pub(crate) fn encode(&self, context: &EventContext<'_>, state: Bytes) -> Result<Bytes, PersistenceError> {
        let mut bytes = state;
        if let Some(compressor) = &self.compressor {
            let mut compressed = Vec::with_capacity(bytes.len());
            compressor.compress(&bytes, &mut compressed)?;
            bytes = compressed.into();
        }
        if let Some(cipher) = &self.cipher {
            let mut encrypted = Vec::with_capacity(bytes.len() + 64);
            cipher.encrypt(context, &bytes, &mut encrypted)?;
            bytes = encrypted.into();
        }
        Ok(bytes)
    }
}

/// Converts the states of one database to those of another.
#[derive(Debug)]
pub(crate) struct Recoder(Option<(StateDecoder, StateEncoder)>);

impl Recoder {
    /// The recoder between databases with the same codecs: stored bytes are not changed.
    pub(crate) fn verbatim() -> Self {
        Self(None)
    }

    pub(crate) fn new(from: StateDecoder, to: StateEncoder) -> Self {
        Self(Some((from, to)))
    }

    pub(crate) fn is_verbatim(&self) -> bool {
        self.0.is_none()
    }

    /// Converts the state of an event.
    ///
    /// # Errors
    /// If the state cannot be decoded or encoded; the error names the event.
    pub(crate) fn recode(&self, event: &mut StoredEvent) -> Result<(), PersistenceError> {
        let Some((from, to)) = &self.0 else { return Ok(()) };
        let plain = from.plain(event).map(|plain| Bytes::copy_from_slice(&plain));
        let encoded = plain.and_then(|plain| to.encode(&event.context(), plain));
        event.state = encoded.map_err(|error| {
            let StoredEvent { originator_id, originator_version, .. } = event;
            error.with_context(format_args!("version {originator_version} of originator {originator_id}"))
        })?;
        Ok(())
    }
}

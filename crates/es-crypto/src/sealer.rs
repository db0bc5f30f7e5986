//! AES-GCM of messages: nonce, tag and ciphertext, concatenated.

use std::fmt;

use es_core::PersistenceError;

use crate::{
    AesKey,
    gcm::{Gcm, NONCE_LENGTH, TAG_LENGTH},
    key::fill_random,
};

/// Encrypts byte strings with AES-GCM and associated data: for formats other than the state of an event.
///
/// A sealed message is a random nonce (12 bytes), the tag (16 bytes) and the ciphertext. See the
/// [crate's documentation](crate) for how many one key may encrypt. Messages are encrypted and decrypted in
/// place, so that no copies of the plaintext are made.
///
/// ```
/// use es_crypto::{AesKey, Sealer};
///
/// let sealer = Sealer::new(&AesKey::random(32)?);
/// let mut message = [&[0; Sealer::OVERHEAD], &b"text"[..]].concat();
/// sealer.seal(b"page 1", &mut message)?;
/// assert_eq!(sealer.open(b"page 1", &mut message.clone())?, b"text");
/// assert!(sealer.open(b"page 2", &mut message).is_err());
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
pub struct Sealer {
    pub(crate) gcm: Gcm,
}

impl Sealer {
    /// The bytes of nonce and tag.
    pub const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;

    /// A sealer with this key.
    pub fn new(key: &AesKey) -> Self {
        Self { gcm: Gcm::new(key) }
    }

    /// Encrypts a message in place: [`OVERHEAD`](Self::OVERHEAD) bytes, which are overwritten with nonce and
    /// tag, and the plaintext.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) if the operating system has no randomness,
    /// [`Data`](es_core::ErrorKind::Data) if the plaintext is longer than AES-GCM can encrypt,
    /// [`Programming`](es_core::ErrorKind::Programming) if the message has no room for nonce and tag. The
    /// plaintext is then not encrypted.
    pub fn seal(&self, associated_data: &[u8], message: &mut [u8]) -> Result<(), PersistenceError> {
        let Some((nonce, tag, text)) = split(message) else {
            return Err(PersistenceError::programming(format!(
                "a message to be sealed has at least {} bytes, for nonce and tag; this one has {}",
                Self::OVERHEAD,
                message.len()
            )));
        };
        fill_random(nonce)?;
        *tag = self.gcm.seal(*nonce, associated_data, text).ok_or_else(|| {
            PersistenceError::data(format!(
                "a plaintext of {} bytes is longer than AES-GCM can encrypt",
                text.len()
            ))
        })?;
        Ok(())
    }

    /// Decrypts a message in place; returns the plaintext, the end of the message.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if it was encrypted with another key or other associated data, or
    /// has been changed. The message is then of no use.
    pub fn open<'m>(
        &self,
        associated_data: &[u8],
        message: &'m mut [u8],
    ) -> Result<&'m mut [u8], PersistenceError> {
        let length = message.len();
        let Some((nonce, tag, text)) = split(message) else {
            return Err(PersistenceError::data(format!(
                "a sealed message has at least {} bytes, for nonce and tag; this one has {length}",
                Self::OVERHEAD
            )));
        };
        if self.gcm.open(*nonce, associated_data, *tag, text) {
            return Ok(text);
        }
        Err(PersistenceError::data(
            "the message cannot be decrypted: it was encrypted with another key, or has changed since",
        ))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// The parts of a message: nonce, tag and text.
type Parts<'a> = (&'a mut [u8; NONCE_LENGTH], &'a mut [u8; TAG_LENGTH], &'a mut [u8]);

fn split(message: &mut [u8]) -> Option<Parts<'_>> {
    let (nonce, rest) = message.split_first_chunk_mut()?;
    let (tag, text) = rest.split_first_chunk_mut()?;
    Some((nonce, tag, text))
}

//! AES-GCM of byte strings: nonce, tag and ciphertext, concatenated.

use std::fmt;

use es_core::PersistenceError;

use crate::{
    AesKey,
    gcm::{Gcm, NONCE_LENGTH, TAG_LENGTH},
    key::fill_random,
};

const OVERHEAD: usize = NONCE_LENGTH + TAG_LENGTH;

/// Encrypts byte strings with AES-GCM and associated data: for formats other than the state of an event.
///
/// The result is a random nonce (12 bytes), the tag (16 bytes) and the ciphertext. See the
/// [crate's documentation](crate) for how many one key may encrypt.
///
/// ```
/// use es_crypto::{AesKey, Sealer};
///
/// let sealer = Sealer::new(&AesKey::random(32)?);
/// let (mut sealed, mut opened) = (Vec::new(), Vec::new());
/// sealer.seal(b"page 1", b"text", &mut sealed)?;
/// sealer.open(b"page 1", &sealed, &mut opened)?;
/// assert_eq!(opened, b"text");
/// assert!(sealer.open(b"page 2", &sealed, &mut opened).is_err());
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
pub struct Sealer {
    gcm: Gcm,
}

impl Sealer {
    /// A sealer with this key.
    pub fn new(key: &AesKey) -> Self {
        Self { gcm: Gcm::new(key) }
    }

    /// Appends the encrypted `plaintext` to `out`.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) if the operating system has no randomness,
    /// [`Data`](es_core::ErrorKind::Data) if the text is longer than AES-GCM can encrypt.
    pub fn seal(
        &self,
        associated_data: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let mut nonce = [0; NONCE_LENGTH];
        fill_random(&mut nonce)?;
        let start = out.len();
        out.reserve(OVERHEAD + plaintext.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&[0; TAG_LENGTH]);
        out.extend_from_slice(plaintext);
        // In bounds: the bytes after `start` were appended above.
        let (head, text) = out[start..].split_at_mut(OVERHEAD);
        let Some(tag) = self.gcm.seal(nonce, associated_data, text) else {
            out.truncate(start);
            return Err(PersistenceError::data(format!(
                "a state of {} bytes is longer than AES-GCM can encrypt",
                plaintext.len()
            )));
        };
        head[NONCE_LENGTH..].copy_from_slice(&tag);
        Ok(())
    }

    /// Appends the decrypted text to `out`.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if it was encrypted with another key or other associated data, or
    /// has been changed.
    pub fn open(
        &self,
        associated_data: &[u8],
        sealed: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let Some((nonce, tag, text)) = split(sealed) else {
            return Err(PersistenceError::data(format!(
                "an encrypted state has at least {OVERHEAD} bytes, for nonce and tag; this one has {}",
                sealed.len()
            )));
        };
        let start = out.len();
        out.extend_from_slice(text);
        // In bounds: the bytes after `start` were appended above.
        if self.gcm.open(*nonce, associated_data, *tag, &mut out[start..]) {
            return Ok(());
        }
        out.truncate(start);
        Err(PersistenceError::data(
            "the state cannot be decrypted: it was encrypted with another key, or has changed since",
        ))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

/// Nonce, tag and ciphertext.
fn split(bytes: &[u8]) -> Option<(&[u8; NONCE_LENGTH], &[u8; TAG_LENGTH], &[u8])> {
    let (nonce, rest) = bytes.split_first_chunk()?;
    let (tag, text) = rest.split_first_chunk()?;
    Some((nonce, tag, text))
}

//! The cipher: nonce, tag and ciphertext, concatenated.

use std::fmt;

use es_core::{Cipher, EventContext, PersistenceError};

use crate::{
    AesKey, Sealer,
    gcm::{NONCE_LENGTH, TAG_LENGTH},
};

/// Encrypts the state of events with AES-GCM, as the Python library does.
///
/// The event's context is ignored. A cipher can be used by any number of threads.
///
/// See the [crate's documentation](crate) for the layout, and for how many events one key may
/// encrypt.
pub struct AesCipher {
    sealer: Sealer,
    key_bits: usize,
}

impl AesCipher {
    /// A cipher with this key.
    pub fn new(key: &AesKey) -> Self {
        Self { sealer: Sealer::new(key), key_bits: key.bits() }
    }

    /// A cipher with the key that this base64 text holds: [`AesKey::from_base64`].
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the text is not base64 of 16, 24 or 32
    /// bytes. The error does not show the text.
    pub fn from_base64(key: &str) -> Result<Self, PersistenceError> {
        AesKey::from_base64(key).map(|key| Self::new(&key))
    }

    /// A new random key of 16, 24 or 32 bytes, as base64 text: what
    /// [`from_base64`](Self::from_base64) and `CIPHER_KEY` take, here and in the Python library.
    ///
    /// ```
    /// let key = es_crypto::AesCipher::create_key(16)?;
    /// assert_eq!(key.len(), 24);
    /// # Ok::<(), es_core::PersistenceError>(())
    /// ```
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for another number of bytes,
    /// [`Operational`](es_core::ErrorKind::Operational) when the operating system has no randomness.
    pub fn create_key(num_bytes: usize) -> Result<String, PersistenceError> {
        AesKey::random(num_bytes).map(|key| key.to_base64())
    }
}

impl Cipher for AesCipher {
    fn encrypt(
        &self,
        _context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let start = out.len();
        out.reserve(Sealer::OVERHEAD + plaintext.len());
        out.resize(start + Sealer::OVERHEAD, 0);
        out.extend_from_slice(plaintext);
        // In bounds: the bytes after `start` were appended above.
        self.sealer.seal(&[], &mut out[start..]).inspect_err(|_| out.truncate(start))
    }

    fn decrypt(
        &self,
        _context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let Some((nonce, tag, text)) = split(ciphertext) else {
            return Err(PersistenceError::data(format!(
                "an encrypted state has at least {} bytes, for nonce and tag; this one has {}",
                Sealer::OVERHEAD,
                ciphertext.len()
            )));
        };
        let start = out.len();
        out.extend_from_slice(text);
        // In bounds: the bytes after `start` were appended above.
        if self.sealer.gcm.open(*nonce, &[], *tag, &mut out[start..]) {
            return Ok(());
        }
        out.truncate(start);
        Err(PersistenceError::data(
            "the state cannot be decrypted: it was encrypted with another key, or has changed since",
        ))
    }
}

/// Nonce, tag and ciphertext.
fn split(bytes: &[u8]) -> Option<(&[u8; NONCE_LENGTH], &[u8; TAG_LENGTH], &[u8])> {
    let (nonce, rest) = bytes.split_first_chunk()?;
    let (tag, text) = rest.split_first_chunk()?;
    Some((nonce, tag, text))
}

impl fmt::Debug for AesCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AesCipher({} bits)", self.key_bits)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;
    use crate::gcm::Gcm;

    fn bytes(hex: &serde_json::Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Nonces are random, so that only here, below them, can sealing be compared byte for byte.
    #[test]
    fn with_the_nonces_of_the_python_library_the_bytes_are_identical() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python/cipher-and-compressor.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let vectors = vectors["aes_gcm"].as_array().unwrap();
        assert!(!vectors.is_empty());
        for vector in vectors {
            let key = STANDARD.decode(vector["key"].as_str().unwrap()).unwrap();
            let gcm = Gcm::new(&AesKey::from_bytes(&key).unwrap());
            let stored = bytes(&vector["ciphertext_hex"]);
            let nonce = *stored.first_chunk().unwrap();
            let mut text = bytes(&vector["plaintext_hex"]);
            let tag = gcm.seal(nonce, &[], &mut text).unwrap();
            assert_eq!([&nonce[..], &tag, &text].concat(), stored);
        }
    }
}

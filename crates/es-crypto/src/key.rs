//! Keys: never displayed, and zeroized when dropped.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use es_core::PersistenceError;
use zeroize::Zeroizing;

const KEY_LENGTHS: [usize; 3] = [16, 24, 32];

/// A key for [`AesCipher`](crate::AesCipher).
///
/// A key:
/// - has 16, 24 or 32 bytes, for AES-128, AES-192 or AES-256,
/// - overwrites its bytes when it is dropped,
/// - shows nothing but its size: `AesKey(256 bits)`.
//
// On the heap, because moving an array would leave copies that nothing overwrites.
#[derive(Clone)]
pub struct AesKey(Zeroizing<Box<[u8]>>);

impl AesKey {
    /// A key from its bytes, for example out of a key management service.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when there are not 16, 24 or 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PersistenceError> {
        check_length(bytes.len())?;
        Ok(Self(Zeroizing::new(bytes.into())))
    }

    /// A key from its base64 text (RFC 4648 section 4, padded), as `CIPHER_KEY` holds it. White
    /// space around the text, such as the newline at the end of a file, is ignored.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) when the text is not base64, or not of 16,
    /// 24 or 32 bytes. The error does not show the text.
    pub fn from_base64(text: &str) -> Result<Self, PersistenceError> {
        let text = text.trim_ascii();
        // One allocation of sufficient size: growing would leave copies behind.
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        // The cause is dropped: it quotes a symbol of the key.
        let length = STANDARD.decode_slice(text, &mut bytes).map_err(|_| {
            PersistenceError::programming("a cipher key is expected to be base64 text; this one is not")
        })?;
        bytes.truncate(length);
        Self::from_bytes(&bytes)
    }

    /// A random key of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for another number of bytes,
    /// [`Operational`](es_core::ErrorKind::Operational) when the operating system has no randomness.
    pub fn random(num_bytes: usize) -> Result<Self, PersistenceError> {
        check_length(num_bytes)?;
        let mut bytes = Zeroizing::new(vec![0; num_bytes].into_boxed_slice());
        fill_random(&mut bytes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn to_base64(&self) -> String {
        STANDARD.encode(self.as_bytes())
    }

    /// Returns the bytes of the key, for example to have them encrypted by a key management service.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bits(&self) -> usize {
        self.0.len() * 8
    }
}

impl fmt::Debug for AesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AesKey({} bits)", self.bits())
    }
}

/// Fills `bytes` from the operating system's random number generator.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), PersistenceError> {
    getrandom::fill(bytes).map_err(|error| {
        PersistenceError::operational("the operating system gives no random bytes").with_source(error)
    })
}

fn check_length(num_bytes: usize) -> Result<(), PersistenceError> {
    if KEY_LENGTHS.contains(&num_bytes) {
        return Ok(());
    }
    Err(PersistenceError::programming(format!(
        "a cipher key is expected to have 16, 24 or 32 bytes; this one has {num_bytes}"
    )))
}

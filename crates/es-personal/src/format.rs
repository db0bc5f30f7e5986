//! The bytes of a sealed value.

use base64::{Engine, engine::general_purpose::STANDARD};
use es_core::PersistenceError;
use es_crypto::Sealer;

use crate::Subject;

/// The first byte of a sealed value, and of its associated data: the format with AES-256-GCM.
const AES_256_GCM: u8 = 1;

/// Seals a plaintext, and returns its base64 text.
pub(crate) fn seal(sealer: &Sealer, subject: &Subject, plaintext: &[u8]) -> Result<String, PersistenceError> {
    let mut sealed = vec![AES_256_GCM];
    sealer.seal(&associated_data(subject), plaintext, &mut sealed)?;
    Ok(STANDARD.encode(sealed))
}

/// Returns the plaintext of a sealed value's base64 text.
pub(crate) fn open(sealer: &Sealer, subject: &Subject, sealed: &str) -> Result<Vec<u8>, PersistenceError> {
    let fail =
        |reason| PersistenceError::data(format!("a personal value of data subject {subject:?} {reason}"));
    let sealed = STANDARD.decode(sealed).map_err(|error| fail("is not base64 text").with_source(error))?;
    let Some(sealed) = sealed.strip_prefix(&[AES_256_GCM]) else {
        return Err(fail("has a format that is not known to this program"));
    };
    let mut plaintext = Vec::new();
    sealer.open(&associated_data(subject), sealed, &mut plaintext).map_err(|_| {
        fail("cannot be opened: it was sealed with another key or for another subject, or has changed since")
    })?;
    Ok(plaintext)
}

fn associated_data(subject: &Subject) -> Vec<u8> {
    let subject = subject.as_str().as_bytes();
    [&[AES_256_GCM], subject].concat()
}

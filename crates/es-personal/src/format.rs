//! The bytes of a sealed value.

use base64::{Engine, decoded_len_estimate, engine::general_purpose::STANDARD};
use es_core::PersistenceError;
use es_crypto::Sealer;
use smallvec::SmallVec;
use zeroize::Zeroize;

use crate::Subject;

/// The first byte of a sealed value, and of its associated data: the format with AES-256-GCM.
const AES_256_GCM: u8 = 1;

/// The capacity of the buffer of a plaintext. A longer plaintext is moved, and leaves copies in freed memory.
const USUAL_LENGTH: usize = 512;

/// Seals the plaintext that `write` appends to its buffer, and returns the base64 text. The plaintext is
/// encrypted in place, or overwritten.
pub(crate) fn seal(
    sealer: &Sealer,
    subject: &Subject,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), PersistenceError>,
) -> Result<String, PersistenceError> {
    let mut sealed = Vec::with_capacity(USUAL_LENGTH);
    sealed.push(AES_256_GCM);
    sealed.resize(1 + Sealer::OVERHEAD, 0);
    write(&mut sealed)
        .and_then(|()| sealer.seal(&associated_data(subject), &mut sealed[1..]))
        .inspect_err(|_| sealed.zeroize())?;
    Ok(STANDARD.encode(sealed))
}

/// Returns what `read` reads from the plaintext of a sealed value's base64 text. The plaintext is then
/// overwritten.
pub(crate) fn open<T>(
    sealer: &Sealer,
    subject: &Subject,
    sealed: &str,
    read: impl FnOnce(&[u8]) -> Result<T, PersistenceError>,
) -> Result<T, PersistenceError> {
    let fail =
        |reason| PersistenceError::data(format!("a personal value of data subject {subject:?} {reason}"));
    // That of usual values is on the stack.
    let mut decoded = SmallVec::<[u8; 256]>::from_elem(0, decoded_len_estimate(sealed.len()));
    let length = STANDARD
        .decode_slice(sealed, &mut decoded)
        .map_err(|error| fail("is not base64 text").with_source(error))?;
    let Some([AES_256_GCM, message @ ..]) = decoded.get_mut(..length) else {
        return Err(fail("has a format that is not known to this program"));
    };
    let plaintext = sealer.open(&associated_data(subject), message).map_err(|_| {
        fail("cannot be opened: it was sealed with another key or for another subject, or has changed since")
    })?;
    let value = read(plaintext);
    plaintext.zeroize();
    value
}

/// That of usual subjects is on the stack.
fn associated_data(subject: &Subject) -> SmallVec<[u8; 64]> {
    let mut data = SmallVec::from_slice(&[AES_256_GCM]);
    data.extend_from_slice(subject.as_str().as_bytes());
    data
}

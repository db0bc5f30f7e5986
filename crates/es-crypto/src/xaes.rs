//! XAES-256-GCM: AES-256-GCM with nonces of 24 bytes.
//!
//! The specification is <https://c2sp.org/XAES-256-GCM>. The first half of the nonce derives a key for each
//! message, by the key derivation in counter mode with CMAC of NIST SP 800-108r1; the second half is the
//! nonce of AES-256-GCM with that key. The CMACs are written out, because each is over one block.

use aes_gcm::{
    KeyInit,
    aes::{Aes256, cipher::BlockCipherEncrypt},
};
use zeroize::Zeroizing;

use crate::{
    AesKey,
    gcm::{Gcm, NONCE_LENGTH, overwrite_round_keys, overwrite_stack},
};

/// The length of a nonce: of the key derivation, and then of AES-256-GCM.
pub(crate) const XAES_NONCE_LENGTH: usize = 12 + NONCE_LENGTH;

/// The polynomial of the doubling in GF(2¹²⁸), as CMAC has it.
const REDUCTION: u8 = 0b1000_0111;

/// Derives the keys of messages.
pub(crate) struct XaesKey {
    cipher: Aes256,
    /// The first subkey of CMAC.
    subkey: Zeroizing<[u8; 16]>,
}

impl XaesKey {
    /// Returns `None` unless the key has 256 bits.
    pub(crate) fn new(key: &AesKey) -> Option<Box<Self>> {
        let expanded = Self::expand(key);
        overwrite_stack();
        expanded
    }

    #[inline(never)]
    fn expand(key: &AesKey) -> Option<Box<Self>> {
        let cipher = Aes256::new_from_slice(key.as_bytes()).ok()?;
        let mut subkey = Zeroizing::new([0; 16]);
        encrypt_block(&cipher, &mut subkey);
        let carry = subkey[0] >> 7;
        for at in 0..16 {
            let next = subkey.get(at + 1).map_or(0, |byte| byte >> 7);
            subkey[at] = subkey[at] << 1 | next;
        }
        // Without a branch: the subkey is secret.
        subkey[15] ^= carry.wrapping_neg() & REDUCTION;
        Some(Box::new(Self { cipher, subkey }))
    }

    /// Returns the cipher of a message, and its nonce.
    pub(crate) fn derive(&self, nonce: [u8; XAES_NONCE_LENGTH]) -> Option<(Gcm, [u8; NONCE_LENGTH])> {
        let (context, nonce) = (&nonce[..12], nonce[12..].try_into().ok()?);
        let mut derived = Zeroizing::new([0; 32]);
        for (counter, half) in (1..).zip(derived.chunks_exact_mut(16)) {
            // The counter, the label `X`, a separator, and the context.
            half[..4].copy_from_slice(&[0, counter, b'X', 0]);
            half[4..].copy_from_slice(context);
            half.iter_mut().zip(self.subkey.iter()).for_each(|(byte, subkey)| *byte ^= subkey);
            encrypt_block(&self.cipher, half.try_into().ok()?);
        }
        overwrite_round_keys();
        Some((Gcm::expand(&AesKey::from_bytes(&*derived).ok()?), nonce))
    }
}

#[inline(never)]
fn encrypt_block(cipher: &Aes256, block: &mut [u8; 16]) {
    cipher.encrypt_block(block.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The vectors of the specification.
    #[test]
    fn vectors_of_the_specification_are_encrypted_and_decrypted() {
        for (key, associated_data, ciphertext) in [
            ([1; 32], "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let key = XaesKey::new(&AesKey::from_bytes(&key).unwrap()).unwrap();
            let (gcm, nonce) = key.derive(*b"ABCDEFGHIJKLMNOPQRSTUVWX").unwrap();
            let mut text = b"XAES-256-GCM".to_vec();
            let tag = gcm.seal(nonce, associated_data.as_bytes(), &mut text).unwrap();
            assert_eq!(hex(&[&text[..], &tag].concat()), ciphertext);
            assert!(gcm.open(nonce, associated_data.as_bytes(), tag, &mut text));
            assert_eq!(text, b"XAES-256-GCM");
        }
    }

    #[test]
    fn a_key_of_another_size_is_refused() {
        assert!(XaesKey::new(&AesKey::from_bytes(&[1; 16]).unwrap()).is_none());
    }
}

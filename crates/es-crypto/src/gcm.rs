//! AES-GCM with keys of all three sizes.

use std::{hint::black_box, sync::LazyLock};

use aes_gcm::{
    AesGcm, KeyInit,
    aead::{AeadInOut, consts::U12},
    aes::Aes192,
};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::AesKey;

pub(crate) const NONCE_LENGTH: usize = 12;
pub(crate) const TAG_LENGTH: usize = 16;

/// The implementation: `ring`, twice as fast, and `aes-gcm` for the key size that `ring` lacks.
pub(crate) enum Gcm {
    Ring(Box<LessSafeKey>),
    Aes192(Box<AesGcm<Aes192, U12>>),
}

/// A key without a secret.
static BLANK: LazyLock<Option<LessSafeKey>> =
    LazyLock::new(|| UnboundKey::new(&AES_256_GCM, &[0; 32]).ok().map(LessSafeKey::new));

impl Gcm {
    pub(crate) fn new(key: &AesKey) -> Self {
        let gcm = Self::expand(key);
        overwrite_stack();
        gcm
    }

    /// Expands a key. Copies of it may remain on the stack.
    #[expect(clippy::expect_used, reason = "an `AesKey` has 16, 24 or 32 bytes")]
    #[inline(never)]
    pub(crate) fn expand(key: &AesKey) -> Self {
        let bytes = key.as_bytes();
        let algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => {
                let key = AesGcm::new_from_slice(bytes).expect("24 bytes make an AES-192 key");
                return Self::Aes192(Box::new(key));
            }
        };
        let key = UnboundKey::new(algorithm, bytes).expect("the algorithm was chosen by the key's length");
        Self::Ring(Box::new(LessSafeKey::new(key)))
    }

    /// Encrypts `text` in place; returns `None` if it is too long.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_LENGTH],
        associated_data: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LENGTH]> {
        match self {
            Self::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, Aad::from(associated_data), text).ok()?;
                tag.as_ref().try_into().ok()
            }
            Self::Aes192(key) => {
                let tag = key.encrypt_inout_detached(&nonce.into(), associated_data, text.into());
                overwrite_round_keys();
                tag.ok().map(Into::into)
            }
        }
    }

    /// Decrypts `text` in place; returns false if it was not encrypted with this key and associated data, or
    /// was changed.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_LENGTH],
        associated_data: &[u8],
        tag: [u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> bool {
        match self {
            Self::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let associated_data = Aad::from(associated_data);
                key.open_in_place_separate_tag(nonce, associated_data, Tag::from(tag), text, 0..).is_ok()
            }
            Self::Aes192(key) => {
                let opened =
                    key.decrypt_inout_detached(&nonce.into(), associated_data, text.into(), &tag.into());
                overwrite_round_keys();
                opened.is_ok()
            }
        }
    }
}

impl Drop for Gcm {
    /// Overwrites the expanded key of `ring`, which does not do so itself.
    fn drop(&mut self) {
        if let (Self::Ring(key), Some(blank)) = (self, &*BLANK) {
            **key = blank.clone();
            // Otherwise the compiler omits a write that is never read.
            black_box(&**key);
        }
    }
}

/// Overwrites the part of the stack that calls before have used: moves of an expanded key leave copies there.
#[inline(never)]
pub(crate) fn overwrite_stack() {
    black_box(&mut [0_u8; 64 << 10]);
}

/// Overwrites the part of the stack on which a call of the crate `aes` leaves round keys: less, because each
/// message needs it.
#[inline(never)]
pub(crate) fn overwrite_round_keys() {
    black_box(&mut [0_u8; 8 << 10]);
}

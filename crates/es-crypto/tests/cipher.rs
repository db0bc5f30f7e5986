//! The guarantees of the cipher: every plaintext is decrypted unchanged, and other bytes are rejected.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::{collections::HashSet, thread};

use es_core::{Cipher, ErrorKind, EventContext, PersistenceError, Topic, uuid::Uuid};
use es_crypto::{AesCipher, AesKey};
use proptest::prelude::*;

const NONCE_LENGTH: usize = 12;
const OVERHEAD: usize = 28;
const KEY_LENGTHS: [usize; 3] = [16, 24, 32];

fn with_context<R>(call: impl FnOnce(&EventContext<'_>) -> R) -> R {
    let topic = Topic::from_static("bank:Account.Opened");
    call(&EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic })
}

fn encrypt(cipher: &AesCipher, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    with_context(|context| cipher.encrypt(context, plaintext, &mut out)).unwrap();
    out
}

fn decrypt(cipher: &AesCipher, ciphertext: &[u8]) -> Result<Vec<u8>, PersistenceError> {
    let mut out = Vec::new();
    let result = with_context(|context| cipher.decrypt(context, ciphertext, &mut out));
    if result.is_err() {
        assert!(out.is_empty(), "nothing that was not authenticated is handed out");
    }
    result.map(|()| out)
}

fn assert_refused(cipher: &AesCipher, ciphertext: &[u8]) {
    assert_eq!(decrypt(cipher, ciphertext).unwrap_err().kind(), ErrorKind::Data);
}

fn new_cipher(num_bytes: usize) -> AesCipher {
    AesCipher::from_base64(&AesCipher::create_key(num_bytes).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn every_plaintext_comes_back(
        key_length in prop::sample::select(&KEY_LENGTHS[..]),
        plaintext in prop::collection::vec(any::<u8>(), 0..2048),
    ) {
        let cipher = new_cipher(key_length);
        let ciphertext = encrypt(&cipher, &plaintext);
        prop_assert_eq!(ciphertext.len(), plaintext.len() + OVERHEAD);
        prop_assert_eq!(decrypt(&cipher, &ciphertext).unwrap(), plaintext);
    }

    #[test]
    fn random_bytes_are_rejected(
        key_length in prop::sample::select(&KEY_LENGTHS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..256),
    ) {
        assert_refused(&new_cipher(key_length), &bytes);
    }
}

#[test]
fn output_is_appended_and_untouched_on_failure() {
    for key_length in KEY_LENGTHS {
        let cipher = new_cipher(key_length);
        let mut encrypted = b"before".to_vec();
        with_context(|context| cipher.encrypt(context, b"state", &mut encrypted)).unwrap();
        assert_eq!(&encrypted[..6], b"before");

        let mut decrypted = b"before".to_vec();
        with_context(|context| cipher.decrypt(context, &encrypted[6..], &mut decrypted)).unwrap();
        assert_eq!(decrypted, b"beforestate");
        with_context(|context| cipher.decrypt(context, b"not encrypted by anybody at all", &mut decrypted))
            .unwrap_err();
        assert_eq!(decrypted, b"beforestate");
    }
}

#[test]
fn a_flipped_bit_is_rejected_at_every_position() {
    for key_length in KEY_LENGTHS {
        let cipher = new_cipher(key_length);
        let ciphertext = encrypt(&cipher, b"a small state");
        for bit in 0..ciphertext.len() * 8 {
            let mut flipped = ciphertext.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_refused(&cipher, &flipped);
        }
    }
}

#[test]
fn a_truncated_or_extended_state_is_refused() {
    for key_length in KEY_LENGTHS {
        let cipher = new_cipher(key_length);
        let mut ciphertext = encrypt(&cipher, b"a small state");
        for length in 0..ciphertext.len() {
            assert_refused(&cipher, &ciphertext[..length]);
        }
        ciphertext.push(0);
        assert_refused(&cipher, &ciphertext);
    }
}

#[test]
fn another_key_is_refused() {
    for key_length in KEY_LENGTHS {
        let ciphertext = encrypt(&new_cipher(key_length), b"a small state");
        for other in KEY_LENGTHS {
            assert_refused(&new_cipher(other), &ciphertext);
        }
    }
}

#[test]
fn keys_of_other_sizes_are_rejected_with_their_size_only() {
    for num_bytes in [0, 1, 15, 17, 23, 25, 31, 33, 64] {
        let expected =
            format!("a cipher key is expected to have 16, 24 or 32 bytes; this one has {num_bytes}");
        let created = AesCipher::create_key(num_bytes).unwrap_err();
        let given = AesKey::from_bytes(&vec![b'k'; num_bytes]).unwrap_err();
        for error in [created, given] {
            assert_eq!(error.kind(), ErrorKind::Programming);
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn invalid_base64_is_rejected_and_never_displayed() {
    for text in ["secret!!", "QUJDRA=", "ключ", "c2VjcmV0c2VjcmV0c2VjcmV0IQ", "c2VjcmV0", ""] {
        let error = AesCipher::from_base64(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        assert!(std::error::Error::source(&error).is_none(), "a cause may quote the key");
        if !text.is_empty() {
            assert!(!format!("{error} {error:?}").contains(text));
        }
    }
}

#[test]
fn white_space_around_a_key_is_ignored() {
    let key = AesCipher::create_key(24).unwrap();
    let ciphertext = encrypt(&AesCipher::from_base64(&key).unwrap(), b"state");
    let cipher = AesCipher::from_base64(&format!(" {key}\r\n")).unwrap();
    assert_eq!(decrypt(&cipher, &ciphertext).unwrap(), b"state");
}

#[test]
fn debug_shows_sizes_and_no_key() {
    for key_length in KEY_LENGTHS {
        let text = AesCipher::create_key(key_length).unwrap();
        let key = AesKey::from_base64(&text).unwrap();
        let bits = key_length * 8;
        assert_eq!(format!("{key:?}"), format!("AesKey({bits} bits)"));
        assert_eq!(format!("{:#?}", AesCipher::new(&key)), format!("AesCipher({bits} bits)"));
    }
}

#[test]
fn created_keys_differ() {
    let keys: HashSet<_> = (0..100).map(|_| AesCipher::create_key(16).unwrap()).collect();
    assert_eq!(keys.len(), 100);
}

#[test]
fn threads_share_a_cipher_and_never_a_nonce() {
    const THREADS: usize = 8;
    const DRAWS: usize = 125_000;
    let cipher = new_cipher(32);
    let mut nonces: Vec<[u8; NONCE_LENGTH]> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    (0..DRAWS)
                        .map(|_| *encrypt(&cipher, b"").first_chunk().unwrap())
                        .collect::<Vec<[u8; NONCE_LENGTH]>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(nonces.len(), THREADS * DRAWS);
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), THREADS * DRAWS);
}

#[test]
fn threads_share_a_cipher_and_decrypt_each_others_states() {
    for key_length in KEY_LENGTHS {
        let cipher = new_cipher(key_length);
        thread::scope(|scope| {
            for thread in 0..8_u8 {
                let cipher = &cipher;
                scope.spawn(move || {
                    for length in 0..200 {
                        let plaintext = vec![thread; length];
                        assert_eq!(decrypt(cipher, &encrypt(cipher, &plaintext)).unwrap(), plaintext);
                    }
                });
            }
        });
    }
}

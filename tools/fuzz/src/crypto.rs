//! Bytes that claim to be an encrypted state, and keys.

use es_persistence::{
    Cipher, EventContext, Topic,
    crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyRing},
};
use uuid::Uuid;

/// The keys of ciphertexts in the corpus, which the Python library wrote. AES-128 and AES-256 are one
/// implementation, AES-192 another.
const KEYS: [&str; 3] = [
    "dnDrlAvVM1+XParYYZuR/w==",
    "F86IpDdDaL/wphYc6kTo/22Og0+RPKJy",
    "5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=",
];

/// The first byte says which key, the others are a ciphertext, a plaintext and a key.
pub fn decrypt(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    #[expect(clippy::expect_used, reason = "the keys are above")]
    let cipher = AesCipher::from_base64(KEYS[usize::from(*choice) % KEYS.len()]).expect("a key");
    let topic = Topic::from_static("bank:Account.Opened");
    let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };

    decrypt_anything(&cipher, &context, data);
    changes_are_noticed(&cipher, &context, data);
    keys_are_not_shown(data);
}

fn decrypt_anything(cipher: &AesCipher, context: &EventContext<'_>, data: &[u8]) {
    let mut out = b"before".to_vec();
    match cipher.decrypt(context, data, &mut out) {
        Ok(()) => assert_eq!(out.len() + 28, b"before".len() + data.len(), "nonce and tag take 28 bytes"),
        Err(_) => assert_eq!(out, b"before", "a part of what was refused came out"),
    }
}

/// Decryption returns the plaintext, and fails when a bit has changed.
fn changes_are_noticed(cipher: &AesCipher, context: &EventContext<'_>, plaintext: &[u8]) {
    let mut encrypted = Vec::new();
    let mut decrypted = Vec::new();
    assert!(cipher.encrypt(context, plaintext, &mut encrypted).is_ok(), "a plaintext is refused");
    assert!(cipher.decrypt(context, &encrypted, &mut decrypted).is_ok(), "what was encrypted is refused");
    assert_eq!(decrypted, plaintext);

    let at = plaintext.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let length = encrypted.len();
    encrypted[at % length] ^= 1 << (at % 8);
    assert!(cipher.decrypt(context, &encrypted, &mut decrypted).is_err(), "a changed bit goes unnoticed");
}

/// Bytes make a key when their number is right, and text when it is the base64 of such bytes.
fn keys_are_not_shown(data: &[u8]) {
    assert_eq!(AesKey::from_bytes(data).is_ok(), matches!(data.len(), 16 | 24 | 32));
    let Ok(text) = str::from_utf8(data) else { return };
    let secret = format!("🔑{text}🔑");
    for text in [text, &secret] {
        if let Err(error) = AesKey::from_base64(text) {
            assert!(!format!("{error} {error:?}").contains('🔑'), "an error shows a key");
        }
    }
}

/// A ring of two keys and a legacy key. The first byte selects algorithm and topic; the others are a state, a
/// plaintext and a text of keys.
pub fn key_ring(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let algorithm = [EnvelopeAlgorithm::Aes256Gcm, EnvelopeAlgorithm::Xaes256Gcm][usize::from(choice % 2)];
    #[expect(clippy::expect_used, reason = "the keys are above")]
    let ring = AesKey::from_base64(KEYS[0])
        .and_then(|legacy| {
            let key = AesKey::from_base64(KEYS[2])?;
            KeyRing::builder().key(1, key.clone()).key(2, key).legacy_key(legacy).algorithm(algorithm).build()
        })
        .expect("a ring");
    let topic = Topic::from_stored(if choice & 2 == 0 { "bank:Account.Opened" } else { "" });
    let originator_version = i64::from(*choice) - 128;
    let context = EventContext { originator_id: Uuid::nil(), originator_version, topic: &topic };

    // As it is, and after the mark, with which random bytes rarely begin.
    for state in [data.to_vec(), [b"\x89ES\x01", data].concat()] {
        let mut out = b"before".to_vec();
        match ring.decrypt(&context, &state, &mut out) {
            Ok(()) => assert!(out.len() < b"before".len() + state.len(), "there is no tag"),
            Err(_) => assert_eq!(out, b"before", "a part of a refused state was returned"),
        }
    }
    is_bound_to_its_event(&ring, &context, data);
    if let Ok(text) = str::from_utf8(data) {
        let secret = format!("1:🔑{text}🔑");
        if let Err(error) = KeyRing::builder().keys(&secret) {
            assert!(!format!("{error} {error:?}").contains('🔑'), "an error shows a key");
        }
    }
}

/// Decryption returns the plaintext, and fails when a bit of the state or of the event has changed.
fn is_bound_to_its_event(ring: &KeyRing, context: &EventContext<'_>, plaintext: &[u8]) {
    let (mut encrypted, mut decrypted) = (Vec::new(), Vec::new());
    assert!(ring.encrypt(context, plaintext, &mut encrypted).is_ok(), "a plaintext is refused");
    assert!(ring.decrypt(context, &encrypted, &mut decrypted).is_ok(), "an encrypted state is refused");
    assert_eq!(decrypted, plaintext);
    let moved = EventContext { originator_version: context.originator_version + 1, ..*context };
    assert!(ring.decrypt(&moved, &encrypted, &mut decrypted).is_err(), "a moved state is decrypted");
    let at = plaintext.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let length = encrypted.len();
    encrypted[at % length] ^= 1 << (at % 8);
    assert!(ring.decrypt(context, &encrypted, &mut decrypted).is_err(), "a changed bit is not noticed");
}

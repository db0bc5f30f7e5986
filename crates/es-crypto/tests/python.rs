//! Every vector that the Python library encrypted is decrypted.
//!
//! The other direction is tested in `cipher.rs`: with the nonce of a vector, the vector's bytes are written.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use es_compress::ZlibCompressor;
use es_core::{Cipher, Compressor, EventContext, Topic, uuid::Uuid};
use es_crypto::AesCipher;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    aes_gcm: Vec<Encrypted>,
    zlib_then_aes_gcm: Vec<CompressedAndEncrypted>,
}

#[derive(Deserialize)]
struct Encrypted {
    key: String,
    plaintext_hex: String,
    ciphertext_hex: String,
}

#[derive(Deserialize)]
struct CompressedAndEncrypted {
    key: String,
    plaintext_hex: String,
    stored_hex: String,
}

fn vectors() -> Vectors {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python/cipher-and-compressor.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decrypt(cipher: &AesCipher, ciphertext: &[u8]) -> Vec<u8> {
    let topic = Topic::from_static("bank:Account.Opened");
    let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
    let mut plaintext = Vec::new();
    cipher.decrypt(&context, ciphertext, &mut plaintext).unwrap();
    plaintext
}

#[test]
fn every_vector_is_decrypted() {
    let vectors = vectors().aes_gcm;
    for num_bytes in [16, 24, 32] {
        let of_size = vectors.iter().filter(|vector| bytes_of_key(&vector.key) == num_bytes).count();
        assert!(of_size >= 3, "{of_size} vectors have a key of {num_bytes} bytes");
    }
    for vector in vectors {
        let cipher = AesCipher::from_base64(&vector.key).unwrap();
        assert_eq!(decrypt(&cipher, &bytes(&vector.ciphertext_hex)), bytes(&vector.plaintext_hex));
    }
}

#[test]
fn every_vector_is_decrypted_and_decompressed() {
    let vectors = vectors().zlib_then_aes_gcm;
    assert!(!vectors.is_empty());
    for vector in vectors {
        let cipher = AesCipher::from_base64(&vector.key).unwrap();
        let compressed = decrypt(&cipher, &bytes(&vector.stored_hex));
        let mut plaintext = Vec::new();
        ZlibCompressor::new().decompress(&compressed, &mut plaintext).unwrap();
        assert_eq!(plaintext, bytes(&vector.plaintext_hex));
    }
}

fn bytes_of_key(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

//! States that the Python library compressed are decompressed, and compressed states have the same format.
#![cfg(feature = "zlib")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use es_compress::ZlibCompressor;
use es_core::Compressor;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    zlib: Vec<Compressed>,
}

#[derive(Deserialize)]
struct Compressed {
    plaintext_hex: String,
    compressed_hex: String,
}

fn vectors() -> Vec<Compressed> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python/cipher-and-compressor.json");
    let vectors: Vectors = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(!vectors.zlib.is_empty());
    vectors.zlib
}

fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2));
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn every_vector_is_decompressed() {
    let compressor = ZlibCompressor::new();
    for vector in vectors() {
        let mut out = Vec::new();
        compressor.decompress(&bytes(&vector.compressed_hex), &mut out).unwrap();
        assert_eq!(out, bytes(&vector.plaintext_hex));
    }
}

/// Encoders find different matches, so that only header and checksum can be compared.
#[test]
fn header_and_checksum_are_those_that_python_writes() {
    let compressor = ZlibCompressor::new();
    for vector in vectors() {
        let theirs = bytes(&vector.compressed_hex);
        let mut ours = Vec::new();
        compressor.compress(&bytes(&vector.plaintext_hex), &mut ours).unwrap();
        assert_eq!(ours.first_chunk::<2>(), theirs.first_chunk::<2>());
        assert_eq!(ours.last_chunk::<4>(), theirs.last_chunk::<4>());
    }
}

/// A stream that requires a preset dictionary, which does not exist.
#[test]
fn a_preset_dictionary_is_refused() {
    let mut out = Vec::new();
    let error =
        ZlibCompressor::new().decompress(b"\x78\xbb\0\0\0\x01\x03\0\0\0\0\x01", &mut out).unwrap_err();
    assert_eq!(error.kind(), es_core::ErrorKind::Data);
}

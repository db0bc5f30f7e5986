//! Bytes that claim to be a compressed state.

use es_persistence::{
    Compressor,
    compress::{ZlibCompressor, ZstdCompressor},
};

use crate::memory::within;

/// Small, so that a short input reaches it.
const LIMIT: usize = 64 << 10;

/// The output as it grows to its limit, the old and the new buffer at once, and the decoder itself.
const MEMORY: u64 = 4 * LIMIT as u64 + (256 << 10);

/// Anything as a zlib stream.
pub fn decompress_zlib(data: &[u8]) {
    decompress(&ZlibCompressor::new().limit(LIMIT), data);
}

/// Anything as a zstd frame.
pub fn decompress_zstd(data: &[u8]) {
    decompress(&ZstdCompressor::new().limit(LIMIT), data);
}

/// It is refused, or gives no more than the limit; and what is written is read again.
fn decompress(compressor: &dyn Compressor, data: &[u8]) {
    let mut out = b"before".to_vec();
    match within(MEMORY, || compressor.decompress(data, &mut out)) {
        Ok(()) => assert!(out.len() <= b"before".len() + LIMIT, "more than the limit came out"),
        Err(_) => assert_eq!(out, b"before", "a part of what was refused came out"),
    }

    let mut compressed = Vec::new();
    let mut again = Vec::new();
    let written = compressor.compress(data, &mut compressed);
    assert_eq!(written.is_ok(), data.len() <= LIMIT, "the limit is for writing, too");
    if written.is_ok() {
        assert!(compressor.decompress(&compressed, &mut again).is_ok(), "what was written is refused");
        assert_eq!(again, data);
    }
}

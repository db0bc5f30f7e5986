//! The cost of compressing and decompressing one small event.
#![expect(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::time::Instant;

use es_compress::{ZlibCompressor, ZstdCompressor};
use es_core::{Compressor, PersistenceError};

const EVENT: &[u8] = br#"{"timestamp":{"_type_":"datetime_iso","_data_":"2026-11-23T17:56:50.123456+00:00"},"owner":"Maria Sklodowska","transaction":{"_type_":"uuid_hex","_data_":"3fa85f6457174562b3fc2c963f66afa6"},"amount":{"_type_":"decimal_str","_data_":"1234.56"},"currency":"EUR","reference":"invoice 2026-004711","iban":"DE89370400440532013000","booked_by":"teller-17"}"#;
const ROUNDS: usize = 31;
const CALLS_PER_ROUND: u32 = 500;

fn main() -> Result<(), PersistenceError> {
    measure("zlib", &ZlibCompressor::new())?;
    measure("zstd", &ZstdCompressor::new())?;
    // A new compressor has no idle encoder.
    let mut out = Vec::new();
    report("zlib, fresh compress", || {
        out.clear();
        ZlibCompressor::new().compress(EVENT, &mut out)
    })?;
    report("zstd, fresh compress", || {
        out.clear();
        ZstdCompressor::new().compress(EVENT, &mut out)
    })
}

fn measure(name: &str, compressor: &dyn Compressor) -> Result<(), PersistenceError> {
    let mut compressed = Vec::new();
    report(&format!("{name}, reused compress"), || {
        compressed.clear();
        compressor.compress(EVENT, &mut compressed)
    })?;
    println!("{name}: {} bytes become {}", EVENT.len(), compressed.len());
    let mut decompressed = Vec::new();
    report(&format!("{name}, reused decompress"), || {
        decompressed.clear();
        compressor.decompress(&compressed, &mut decompressed)
    })
}

/// Prints the time of one call: the median of all rounds, and the minimum, which load affects less.
fn report(
    name: &str,
    mut call: impl FnMut() -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS_PER_ROUND {
            call()?;
        }
        rounds.push(start.elapsed() / CALLS_PER_ROUND);
    }
    rounds.sort_unstable();
    println!("{name}: {} ns, best {} ns", rounds[ROUNDS / 2].as_nanos(), rounds[0].as_nanos());
    Ok(())
}

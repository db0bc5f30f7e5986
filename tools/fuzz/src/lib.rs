//! Properties that hold for any bytes: one function for each fuzz target.
//!
//! A target is given bytes and panics when a promise is broken. `targets/` hands it what libFuzzer makes up;
//! the tests of this crate hand it every file of `tools/fuzz/corpus`, on stable Rust and without libFuzzer.
//! Each input with which a fuzzer finds a defect becomes a file of the corpus.

mod bank;
mod compress;
mod crypto;
mod database;
mod memory;
mod settings;
mod transcode;

pub use compress::{decompress_zlib, decompress_zstd};
pub use crypto::{decrypt, key_ring};
pub use database::python_database;
pub use settings::{environment, topic};
pub use transcode::{decode_event, decode_value, round_trip};

/// A target and its name: that of its corpus in `tools/fuzz/corpus`, and of its program in
/// `tools/fuzz/targets`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("decode_event", decode_event),
    ("decode_value", decode_value),
    ("decompress_zlib", decompress_zlib),
    ("decompress_zstd", decompress_zstd),
    ("decrypt", decrypt),
    ("environment", environment),
    ("key_ring", key_ring),
    ("python_database", python_database),
    ("round_trip", round_trip),
    ("topic", topic),
];

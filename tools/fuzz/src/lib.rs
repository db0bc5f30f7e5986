//! Properties that hold for any bytes: one function for each fuzz target.
//!
//! A target is given bytes and panics when a promise is broken. `targets/` hands it what libFuzzer makes up;
//! the tests of this crate hand it every file of `tools/fuzz/corpus`, on stable Rust and without libFuzzer.
//! Each input with which a fuzzer finds a defect becomes a file of the corpus.

mod bank;
mod compress;
mod crypto;
mod database;
#[path = "../../../crates/es-cli/src/digest.rs"]
#[allow(dead_code, reason = "the command-line tool uses more of it")]
mod digest;
mod export;
mod failure;
#[path = "../../../crates/es-cli/src/interchange.rs"]
#[allow(dead_code, reason = "the command-line tool uses more of it")]
mod interchange;
mod memory;
mod personal;
mod settings;
mod transcode;

pub use compress::{decompress_zlib, decompress_zstd};
pub use crypto::{cipher_keys, decrypt, key_ring};
pub use database::python_database;
pub use export::export;
pub use personal::personal;
pub use settings::{environment, topic};
pub use transcode::{decode_event, decode_value, round_trip};

/// A target and its name: that of its corpus in `tools/fuzz/corpus`, and of its program in
/// `tools/fuzz/targets`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("cipher_keys", cipher_keys),
    ("decode_event", decode_event),
    ("decode_value", decode_value),
    ("decompress_zlib", decompress_zlib),
    ("decompress_zstd", decompress_zstd),
    ("decrypt", decrypt),
    ("environment", environment),
    ("export", export),
    ("key_ring", key_ring),
    ("personal", personal),
    ("python_database", python_database),
    ("round_trip", round_trip),
    ("topic", topic),
];

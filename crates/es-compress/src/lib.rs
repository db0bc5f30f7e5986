//! zlib and zstd compressors for stored events, with bounded decompression.
//!
//! - [`ZlibCompressor`] (feature `zlib`, on by default) has the format of the Python library.
//! - [`ZstdCompressor`] (feature `zstd`) is faster; the Python library has no counterpart.
//!
//! Both keep their encoders and decoders for the next call, serve any number of threads at once,
//! and refuse to decompress to more than a limit, [`DEFAULT_LIMIT`] by default.
//!
//! # Example
//! ```
//! # #[cfg(feature = "zlib")] {
//! use es_compress::ZlibCompressor;
//! use es_core::Compressor;
//!
//! let compressor = ZlibCompressor::new();
//! let state = br#"{"owner":"Ada","owner_before":"Ada","owner_after":"Ada"}"#;
//!
//! let mut compressed = Vec::new();
//! compressor.compress(state, &mut compressed)?;
//! assert!(compressed.len() < state.len());
//!
//! let mut decompressed = Vec::new();
//! compressor.decompress(&compressed, &mut decompressed)?;
//! assert_eq!(decompressed, state);
//! # }
//! # Ok::<(), es_core::PersistenceError>(())
//! ```
//! Usually a compressor is passed to a mapper:
//! `Mapper::new(transcoder).with_compressor(compressor)`.
//!
//! # Which backend, and why
//! µs on one core of an Intel Xeon, best of 201 rounds, for a JSON event of 350 bytes, zlib at level 6, zstd
//! at level 3. "Reused" is an encoder or decoder that has served before, as it has here (`cargo bench -p
//! es-compress --all-features` measures this crate again):
//!
//! | | compress, fresh | compress, reused | decompress, reused | bytes |
//! |---|---|---|---|---|
//! | zlib, in C | 46.5 | 7.6 | 2.9 | 245 |
//! | `zlib-rs` | 18.2 | 12.1 | 2.2 | 244 |
//! | `libdeflater`, in C | 12.6 | 9.2 | 2.2 | 245 |
//! | `miniz_oxide` | 95.2 | 14.1 | 3.7 | 245 |
//! | [`ZlibCompressor`] | 12.3 | 8.4 | 2.5 | 245 |
//! | `ZstdCompressor`, with a checksum | 24.6 | 4.6 | 1.6 | 267 |
//!
//! So [`ZlibCompressor`] compresses by zlib itself, through `flate2`, and decompresses by `zlib-rs`, which
//! is the fastest at that, and parses stored bytes in Rust. A quarter of the time that
//! `zlib-rs` takes to compress goes into clearing its hash table of 128 KiB for the next event; that of zlib
//! has half the size. Cargo unifies features: in a program that uses this crate, `flate2` is on zlib for
//! all.

#![cfg_attr(
    not(all(feature = "zlib", feature = "zstd")),
    allow(rustdoc::broken_intra_doc_links, reason = "names what is left out, too")
)]

#[cfg(any(feature = "zlib", feature = "zstd"))]
mod limited_buffer;
#[cfg(any(feature = "zlib", feature = "zstd"))]
mod pool;
#[cfg(feature = "zlib")]
mod zlib;
#[cfg(feature = "zstd")]
mod zstd;

#[cfg(feature = "zlib")]
pub use self::zlib::ZlibCompressor;
#[cfg(feature = "zstd")]
pub use self::zstd::ZstdCompressor;

/// The default limit of decompressed bytes: 256 MiB.
///
/// Far above any intended event, and an amount of memory that a server can spare
/// for one. A few bytes in the database can decompress to gigabytes; this stops them.
pub const DEFAULT_LIMIT: usize = 256 << 20;

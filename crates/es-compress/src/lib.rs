//! zlib and zstd compressors for stored events, with bounded decompression.
//!
//! - [`ZlibCompressor`] (feature `zlib`, on by default) writes and reads what the Python library does.
//! - [`ZstdCompressor`] (feature `zstd`) is faster; the Python library has no counterpart.
//!
//! Both keep their encoders and decoders for the next call, serve any number of threads at once,
//! and refuse to decompress to more than a limit, [`DEFAULT_LIMIT`] unless told otherwise.
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
//! Usually a compressor is given to a mapper: `Mapper::new(transcoder).with_compressor(Arc::new(compressor))`.
//!
//! # Which backend, and why
//! µs on one AMD EPYC core, best of 31 rounds, for a JSON event of 350 bytes, zlib at level 6, zstd at
//! level 3. "Reused" is an encoder or decoder that has served before, as it has here (`cargo bench
//! -p es-compress --all-features` measures this crate again):
//!
//! | | compress, fresh | compress, reused | decompress, reused | bytes |
//! |---|---|---|---|---|
//! | `flate2` on `zlib-rs` | 11.5 | 8.8 | 1.8 | 244 |
//! | `flate2` on `miniz_oxide` | 115.6 | 16.9 | 3.9 | 245 |
//! | `flate2` on zlib, in C | 56.9 | 6.2 | 2.0 | 245 |
//! | `libdeflater`, in C | 9.3 | 6.9 | 1.7 | 245 |
//! | `zstd`, in C, with a checksum | 11.4 | 3.7 | 1.2 | 267 |
//! | [`ZlibCompressor`], on `zlib-rs` | 13.0 | 8.8 | 1.7 | 244 |
//!
//! `zlib-rs` is the fastest that parses what stands in a database in Rust. The two in C save 2 to 3 µs
//! of a write and nothing of a read, which is not worth a C compiler in every build. Cargo unifies
//! features: in a program where another crate chooses a C backend for `flate2`, this crate uses it
//! too. All of them read what the others wrote.

#![cfg_attr(
    not(all(feature = "zlib", feature = "zstd")),
    allow(rustdoc::broken_intra_doc_links, reason = "names what is left out, too")
)]

#[cfg(any(feature = "zlib", feature = "zstd"))]
mod bounded;
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

/// How many bytes a state may decompress to, unless a compressor is told otherwise: 256 MiB.
///
/// Far above any event that is written on purpose, and an amount of memory that a server can spare
/// for one. A few bytes in the database can claim to be gigabytes; they get no further than this.
pub const DEFAULT_LIMIT: usize = 256 << 20;

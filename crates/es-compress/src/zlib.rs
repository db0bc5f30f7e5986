//! zlib, as the Python library writes it.
//!
//! zlib itself, in C, writes streams, and its counterpart in Rust reads them: each is the faster of both for
//! this direction, and the input of reads is untrusted.

use std::ops::RangeInclusive;

use es_core::{Compressor, PersistenceError};
use flate2::{Compress, Compression, FlushCompress, Status};
use zlib_rs::{Inflate, InflateFlush};

use crate::{
    DEFAULT_LIMIT,
    limited_buffer::{LimitedBuffer, check_writable, malformed, trailing, truncated},
    pool::Pool,
};

const DEFAULT_LEVEL: u32 = 6;
const HIGHEST_LEVEL: u32 = 9;

/// The largest window that a stream may require, as a power of two.
const WINDOW_BITS: u8 = 15;

/// The expected ratio of decompressed to compressed size; the buffer grows if it is exceeded.
const EXPECTED_RATIO: usize = 4;

/// The lower and upper bound of bytes to decompress at once: the output is zeroed before.
const AT_ONCE: RangeInclusive<usize> = 512..=1 << 20;

/// Compresses the state of events to zlib streams (RFC 1950), as the Python library does.
///
/// Reads a stream of any level and window size. Exactly one stream makes a state: nothing may be
/// missing, nothing may follow, and its checksum must be right. That checksum is zlib's Adler-32, which
/// finds most damage but not all of it in states of a few hundred bytes; a cipher finds all.
///
/// ```
/// use es_compress::ZlibCompressor;
///
/// let compressor = ZlibCompressor::new().level(9)?.limit(16 << 20);
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
#[derive(Debug)]
pub struct ZlibCompressor {
    level: u32,
    limit: usize,
    encoders: Pool<Compress>,
    decoders: Pool<Inflate>,
}

impl ZlibCompressor {
    /// A compressor of level 6, the Python library's, with the [`DEFAULT_LIMIT`].
    pub fn new() -> Self {
        Self { level: DEFAULT_LEVEL, limit: DEFAULT_LIMIT, encoders: Pool::new(), decoders: Pool::new() }
    }

    /// The level, from 0 (stored) to 9 (smallest).
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for any other level.
    pub fn level(mut self, level: u32) -> Result<Self, PersistenceError> {
        if level > HIGHEST_LEVEL {
            return Err(PersistenceError::programming(format!(
                "a zlib level is expected to be 0 to {HIGHEST_LEVEL}; this one is {level}"
            )));
        }
        self.level = level;
        self.encoders = Pool::new();
        Ok(self)
    }

    /// The maximum size of a state in bytes before it is compressed, and after it is decompressed.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl Default for ZlibCompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl Compressor for ZlibCompressor {
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        check_writable(data, self.limit)?;
        let start = out.len();
        let result = self.encoders.with(
            || Ok(Compress::new(Compression::new(self.level), true)),
            |encoder| deflate(encoder, data, out),
        );
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        LimitedBuffer::fill(out, self.limit, expected(data), |out| {
            self.decoders.with(|| Ok(Inflate::new(true, WINDOW_BITS)), |decoder| inflate(decoder, data, out))
        })
    }
}

fn deflate(encoder: &mut Compress, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
    encoder.reset();
    loop {
        // Enough for the usual size of compressed JSON, and at least for header and checksum.
        out.reserve(data.len() / 2 + 64);
        let rest = data.get(count(encoder.total_in())..).unwrap_or_default();
        let status = encoder
            .compress_vec(rest, out, FlushCompress::Finish)
            .map_err(|error| PersistenceError::internal("zlib does not compress").with_source(error))?;
        if status == Status::StreamEnd {
            break;
        }
        if out.len() < out.capacity() {
            return Err(PersistenceError::internal("zlib neither ends the stream nor fills the room it has"));
        }
    }
    // A stream that lacks a part of the state must never be stored.
    if count(encoder.total_in()) != data.len() {
        return Err(PersistenceError::internal("zlib ended the stream before all of the state was in it"));
    }
    Ok(())
}

fn inflate(decoder: &mut Inflate, data: &[u8], out: &mut LimitedBuffer<'_>) -> Result<(), PersistenceError> {
    decoder.reset(true);
    let at_once = expected(data).clamp(*AT_ONCE.start(), *AT_ONCE.end());
    loop {
        let rest = data.get(count(decoder.total_in())..).unwrap_or_default();
        let room = out.room()?;
        let (start, before) = (room.len(), decoder.total_out());
        let end = room.capacity().min(start.saturating_add(at_once));
        room.resize(end, 0);
        let outcome =
            decoder.decompress(rest, room.get_mut(start..).unwrap_or_default(), InflateFlush::Finish);
        room.truncate(start + count(decoder.total_out() - before));
        let is_full = room.len() == end;
        let status = outcome.map_err(|error| {
            malformed("zlib").with_source(decoder.error_message().unwrap_or(error.as_str()))
        })?;
        if status == zlib_rs::Status::StreamEnd {
            break;
        }
        if !is_full {
            return Err(truncated("zlib"));
        }
    }
    match data.len() - count(decoder.total_in()) {
        0 => Ok(()),
        rest => Err(trailing("zlib", rest)),
    }
}

fn expected(data: &[u8]) -> usize {
    data.len().saturating_mul(EXPECTED_RATIO)
}

/// A count of bytes that are in memory, which therefore fits.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

//! zstd, for databases that no Python process reads.

use std::io;

use es_core::{Compressor, PersistenceError};
use zstd::{
    bulk, compress_bound, compression_level_range,
    stream::raw::{CParameter, DParameter, Decoder, InBuffer, Operation, OutBuffer},
    zstd_safe::get_frame_content_size,
};

use crate::{
    DEFAULT_LIMIT,
    limited_buffer::{LimitedBuffer, beyond_limit, check_writable, malformed, trailing, truncated},
    pool::Pool,
};

/// The size that a frame declares is trusted up to this many bytes, and up to [`BELIEVED_RATIO`] times
/// its own size: trusting it saves a copy, and costs at most that much if it is wrong.
const BELIEVED_SIZE: usize = 64 << 10;
const BELIEVED_RATIO: usize = 16;

/// Every decoder should support windows of 8 MiB (RFC 8878, section 3.1.1.1.2); encoders use more than
/// 128 MiB only if explicitly configured.
const WINDOW_LOGS: std::ops::RangeInclusive<u32> = 23..=27;

/// Compresses the state of events to zstd frames (RFC 8878) with a checksum.
///
/// Reads a frame of any level. Exactly one frame makes a state: nothing may be missing, and nothing
/// may follow. States that were written with another compressor, or without one, are not read.
///
/// ```
/// use es_compress::ZstdCompressor;
///
/// let compressor = ZstdCompressor::new().level(9)?.limit(16 << 20);
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
pub struct ZstdCompressor {
    level: i32,
    limit: usize,
    encoders: Pool<bulk::Compressor<'static>>,
    decoders: Pool<Decoder<'static>>,
}

impl ZstdCompressor {
    /// A compressor of level 3, zstd's own default, with the [`DEFAULT_LIMIT`].
    pub fn new() -> Self {
        Self {
            level: zstd::DEFAULT_COMPRESSION_LEVEL,
            limit: DEFAULT_LIMIT,
            encoders: Pool::new(),
            decoders: Pool::new(),
        }
    }

    /// The level, from 1 (fastest) to 22 (smallest); negative levels are even faster. The
    /// memory of an encoder grows with the level, to hundreds of megabytes from 20.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) for a level that zstd does not have.
    pub fn level(mut self, level: i32) -> Result<Self, PersistenceError> {
        let levels = compression_level_range();
        if !levels.contains(&level) {
            return Err(PersistenceError::programming(format!(
                "a zstd level is expected to be {} to {}; this one is {level}",
                levels.start(),
                levels.end()
            )));
        }
        self.level = level;
        self.encoders = Pool::new();
        Ok(self)
    }

    /// The maximum size of a state in bytes before it is compressed, and after it is decompressed.
    ///
    /// It bounds the memory of a decoder, too: a frame may require a window as large as the limit,
    /// but never for more than 128 MiB, and always for 8 MiB.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self.decoders = Pool::new();
        self
    }

    fn new_encoder(&self) -> Result<bulk::Compressor<'static>, PersistenceError> {
        let create = || -> io::Result<_> {
            let mut encoder = bulk::Compressor::new(self.level)?;
            encoder.set_parameter(CParameter::ChecksumFlag(true))?;
            Ok(encoder)
        };
        create().map_err(|error| PersistenceError::internal("zstd has no encoder").with_source(error))
    }

    fn new_decoder(&self) -> Result<Decoder<'static>, PersistenceError> {
        let window_log = self.limit.saturating_sub(1).checked_ilog2().map_or(0, |log| log + 1);
        let window_log = window_log.clamp(*WINDOW_LOGS.start(), *WINDOW_LOGS.end());
        let create = || -> io::Result<_> {
            let mut decoder = Decoder::new()?;
            decoder.set_parameter(DParameter::WindowLogMax(window_log))?;
            Ok(decoder)
        };
        create().map_err(|error| PersistenceError::internal("zstd has no decoder").with_source(error))
    }
}

impl Default for ZstdCompressor {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ZstdCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ZstdCompressor")
            .field("level", &self.level)
            .field("limit", &self.limit)
            .field("encoders", &self.encoders)
            .field("decoders", &self.decoders)
            .finish()
    }
}

impl Compressor for ZstdCompressor {
    fn compress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        check_writable(data, self.limit)?;
        let start = out.len();
        out.reserve(compress_bound(data.len()));
        let mut end = io::Cursor::new(&mut *out);
        end.set_position(start as u64);
        let result = self.encoders.with(
            || self.new_encoder(),
            |encoder| {
                encoder
                    .compress_to_buffer(data, &mut end)
                    .map_err(|error| PersistenceError::internal("zstd does not compress").with_source(error))
            },
        );
        if result.is_err() {
            out.truncate(start);
        }
        result.map(|_| ())
    }

    fn decompress(&self, data: &[u8], out: &mut Vec<u8>) -> Result<(), PersistenceError> {
        let claimed = claimed_size(data)?;
        if claimed > self.limit as u64 {
            return Err(beyond_limit(self.limit));
        }
        let believable = BELIEVED_SIZE.max(data.len().saturating_mul(BELIEVED_RATIO));
        let expected = usize::try_from(claimed).unwrap_or(usize::MAX).min(believable);
        LimitedBuffer::fill(out, self.limit, expected, |out| {
            self.decoders.with(|| self.new_decoder(), |decoder| read_frame(decoder, data, out))
        })
    }
}

/// Returns the size that a frame declares; 0 if it declares none.
fn claimed_size(data: &[u8]) -> Result<u64, PersistenceError> {
    get_frame_content_size(data).map(Option::unwrap_or_default).map_err(|_| malformed("zstd"))
}

fn read_frame(
    decoder: &mut Decoder<'static>,
    data: &[u8],
    out: &mut LimitedBuffer<'_>,
) -> Result<(), PersistenceError> {
    let mut input = InBuffer::around(data);
    loop {
        let room = out.room()?;
        let end = room.len();
        let mut output = OutBuffer::around_pos(room, end);
        let expected =
            decoder.run(&mut input, &mut output).map_err(|error| malformed("zstd").with_source(error))?;
        if expected == 0 {
            break;
        }
        if !out.is_full() {
            return Err(truncated("zstd"));
        }
    }
    match data.len() - input.pos() {
        0 => Ok(()),
        rest => Err(trailing("zstd", rest)),
    }
}

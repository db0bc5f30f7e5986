//! An output buffer with a limit.

use es_core::PersistenceError;

/// The first capacity, so that short states need no second step.
const LEAST_ROOM: usize = 512;

/// The end of a buffer that decompressed bytes are appended to.
///
/// Its capacity grows with the bytes produced, not with the size that the compressed bytes declare.
#[derive(Debug)]
pub(crate) struct LimitedBuffer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
}

impl<'a> LimitedBuffer<'a> {
    /// Runs `fill`, and truncates `out` to its previous length if it fails.
    ///
    /// The initial capacity is `expected` bytes, which must be plausible.
    pub(crate) fn fill(
        out: &'a mut Vec<u8>,
        limit: usize,
        expected: usize,
        fill: impl FnOnce(&mut Self) -> Result<(), PersistenceError>,
    ) -> Result<(), PersistenceError> {
        let start = out.len();
        out.reserve(expected.min(limit));
        let mut buffer = Self { out, start, limit };
        let result = fill(&mut buffer).and_then(|()| buffer.check());
        if result.is_err() {
            buffer.out.truncate(start);
        }
        result
    }

    /// Returns the buffer, with capacity for at least one more byte.
    ///
    /// # Errors
    /// If more bytes than the limit have been produced.
    pub(crate) fn room(&mut self) -> Result<&mut Vec<u8>, PersistenceError> {
        self.check()?;
        if self.is_full() {
            // One byte beyond the limit, so that exceeding it is detected.
            let rest = (self.limit - self.produced()).saturating_add(1);
            self.out.reserve(self.produced().max(LEAST_ROOM).min(rest));
        }
        Ok(self.out)
    }

    /// Returns whether the decoder stopped for lack of capacity, not of input.
    pub(crate) fn is_full(&self) -> bool {
        self.out.len() == self.out.capacity()
    }

    fn produced(&self) -> usize {
        self.out.len() - self.start
    }

    fn check(&self) -> Result<(), PersistenceError> {
        if self.produced() > self.limit {
            return Err(beyond_limit(self.limit));
        }
        Ok(())
    }
}

/// The error for a state that decompresses to more than the limit.
pub(crate) fn beyond_limit(limit: usize) -> PersistenceError {
    PersistenceError::data(format!(
        "the state decompresses to more than {limit} bytes, the limit of this compressor; if it is meant \
         to, give the compressor a higher one with `limit()`"
    ))
}

/// Rejects a state that could not be decompressed within the limit.
pub(crate) fn check_writable(data: &[u8], limit: usize) -> Result<(), PersistenceError> {
    if data.len() <= limit {
        return Ok(());
    }
    Err(PersistenceError::data(format!(
        "the state has {} bytes, more than the {limit} that this compressor decompresses to; if it is meant \
         to, give the compressor a higher limit with `limit()`",
        data.len()
    )))
}

/// The error for a truncated state.
pub(crate) fn truncated(format: &str) -> PersistenceError {
    PersistenceError::data(format!("the state ends before its {format} stream does"))
}

/// The error for a state with trailing bytes.
pub(crate) fn trailing(format: &str, bytes: usize) -> PersistenceError {
    PersistenceError::data(format!("{bytes} bytes follow the {format} stream of the state"))
}

/// The error for bytes that are not of this format.
pub(crate) fn malformed(format: &str) -> PersistenceError {
    PersistenceError::data(format!("the state is not a {format} stream, or has changed since it was written"))
}

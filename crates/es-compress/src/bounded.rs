//! Output that grows as it is filled, and never beyond a limit.

use es_core::PersistenceError;

/// The least that is made room for, so that short states need no second step.
const LEAST_ROOM: usize = 512;

/// The end of a buffer that decompressed bytes are appended to.
///
/// Room grows with what has been produced, not with what the compressed bytes promise.
#[derive(Debug)]
pub(crate) struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    limit: usize,
}

impl<'a> Bounded<'a> {
    /// Runs `fill`, and takes back what it appended to `out` if it fails.
    ///
    /// There is room for the `expected` bytes at first, which must be believable.
    pub(crate) fn fill(
        out: &'a mut Vec<u8>,
        limit: usize,
        expected: usize,
        fill: impl FnOnce(&mut Self) -> Result<(), PersistenceError>,
    ) -> Result<(), PersistenceError> {
        let start = out.len();
        out.reserve(expected.min(limit));
        let mut bounded = Self { out, start, limit };
        let result = fill(&mut bounded).and_then(|()| bounded.check());
        if result.is_err() {
            bounded.out.truncate(start);
        }
        result
    }

    /// The buffer, with room for at least one more byte.
    ///
    /// # Errors
    /// When more than the limit has been produced.
    pub(crate) fn room(&mut self) -> Result<&mut Vec<u8>, PersistenceError> {
        self.check()?;
        if self.is_full() {
            // One byte beyond the limit, so that the one that is too many shows itself.
            let rest = (self.limit - self.produced()).saturating_add(1);
            self.out.reserve(self.produced().max(LEAST_ROOM).min(rest));
        }
        Ok(self.out)
    }

    /// Whether the decoder stopped for lack of room, not of input.
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

/// Refuses to write what could not be read back.
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

/// The error for a state of which a part is missing.
pub(crate) fn truncated(format: &str) -> PersistenceError {
    PersistenceError::data(format!("the state ends before its {format} stream does"))
}

/// The error for a state that goes on after its end.
pub(crate) fn trailing(format: &str, bytes: usize) -> PersistenceError {
    PersistenceError::data(format!("{bytes} bytes follow the {format} stream of the state"))
}

/// The error for bytes that no compressor of this format wrote.
pub(crate) fn malformed(format: &str) -> PersistenceError {
    PersistenceError::data(format!("the state is not a {format} stream, or has changed since it was written"))
}

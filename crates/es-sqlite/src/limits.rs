//! Limits of groups and of inline work, and the average latency that decides whether work runs inline.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A number of rows, and of bytes in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// The limits of one inline read or commit: some 40 µs of reading. Writing takes longer, and is measured.
///
/// A caller's thread belongs to its runtime, and other tasks wait for it. Handing work to another thread
/// costs some 100 µs on a machine whose cores sleep in between. Work of about that length that does not block
/// is faster inline; longer work belongs to the threads of the datastore.
pub(crate) const INLINE_LIMITS: Limits = Limits { rows: 64, bytes: 64 << 10 };

/// The average time of small commits up to which they are inline. Where a flush takes milliseconds, inline
/// commits gain nothing.
pub(crate) const INLINE_COMMIT_LATENCY: Duration = Duration::from_micros(500);

/// The average time of short reads up to which they are inline; about that of the way to a reader thread and
/// back.
pub(crate) const INLINE_READ_LATENCY: Duration = Duration::from_micros(100);

/// The number of calls that the average is over.
const WINDOW: u64 = 32;

/// The average time of the latest calls of one kind, and the limit up to which they are short.
///
/// The first thirty calls or so count as slow. A call counts as at most sixteen times the limit: among calls
/// that take less than half of the limit, one slow call is tolerated, and a second one within some 45 calls
/// is not.
#[derive(Debug)]
pub(crate) struct AverageLatency {
    average: AtomicU64,
    limit: u64,
}

impl Limits {
    pub(crate) const ZERO: Self = Self { rows: 0, bytes: 0 };

    /// Returns the smaller of both limits.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { rows: self.rows.min(other.rows), bytes: self.bytes.min(other.bytes) }
    }

    pub(crate) fn contain(self, rows: usize, bytes: usize) -> bool {
        rows <= self.rows && bytes <= self.bytes
    }
}

impl AverageLatency {
    pub(crate) fn new(limit: Duration) -> Self {
        let limit = nanoseconds(limit);
        Self { average: AtomicU64::new(2 * limit), limit }
    }

    /// Records the time of a call. Of calls that end at the same moment, one may be left out.
    pub(crate) fn record(&self, elapsed: Duration) {
        let elapsed = nanoseconds(elapsed).min(16 * self.limit);
        let average = self.average.load(Ordering::Relaxed);
        self.average.store(average - average / WINDOW + elapsed / WINDOW, Ordering::Relaxed);
    }

    pub(crate) fn is_short(&self) -> bool {
        self.average.load(Ordering::Relaxed) <= self.limit
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_commit_is_tolerated_and_more_are_not() {
        let latency = AverageLatency::new(Duration::from_micros(500));
        let record = |times: u32, elapsed| (0..times).for_each(|_| latency.record(elapsed));
        let (quick, stalled) = (Duration::from_micros(200), Duration::from_secs(3_600));
        record(20, quick);
        assert!(!latency.is_short(), "too few calls");
        record(200, quick);
        assert!(latency.is_short());
        record(1, stalled);
        assert!(latency.is_short());
        record(20, quick);
        record(1, stalled);
        assert!(!latency.is_short());
        record(100, quick);
        assert!(latency.is_short());
        record(100, Duration::from_micros(600));
        assert!(!latency.is_short());
    }
}

//! What is short enough to be done on the caller's own thread.
//!
//! That thread belongs to the caller's runtime, and other tasks wait for it. But to have something done
//! by another thread costs the way there and back, some 100 µs on a machine whose cores sleep in
//! between. Work of about that length, which waits for nobody, is better done at once; whatever is
//! or might become longer is left to the threads of the datastore.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A number of rows, and of bytes in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// What is read or written on a caller's thread at most: some 40 µs of reading. Writing takes longer,
/// and is measured.
pub(crate) const SHORT: Bounds = Bounds { rows: 64, bytes: 64 << 10 };

/// The number of calls that the average is over.
const MEMORY: u64 = 32;

/// The average time of the latest calls of one kind, and the limit up to which they are short.
///
/// Until there are some thirty calls, they count as slow. A call counts as at most sixteen times the limit:
/// among calls that take less than half of the limit, one slow call is forgiven, and another one within some
/// 45 calls is not.
#[derive(Debug)]
pub(crate) struct Pace {
    average: AtomicU64,
    limit: u64,
}

impl Bounds {
    pub(crate) const NONE: Self = Self { rows: usize::MAX, bytes: usize::MAX };
    pub(crate) const NOTHING: Self = Self { rows: 0, bytes: 0 };

    /// The narrower of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { rows: self.rows.min(other.rows), bytes: self.bytes.min(other.bytes) }
    }

    pub(crate) fn hold(self, rows: usize, bytes: usize) -> bool {
        rows <= self.rows && bytes <= self.bytes
    }
}

impl Pace {
    pub(crate) fn new(limit: Duration) -> Self {
        let limit = nanoseconds(limit);
        Self { average: AtomicU64::new(2 * limit), limit }
    }

    /// Learns how long a call took. Of calls that end at the same moment, one may be left out.
    pub(crate) fn learn(&self, took: Duration) {
        let took = nanoseconds(took).min(16 * self.limit);
        let known = self.average.load(Ordering::Relaxed);
        self.average.store(known - known / MEMORY + took / MEMORY, Ordering::Relaxed);
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
    fn one_slow_commit_is_forgiven_and_more_are_not() {
        let pace = Pace::new(Duration::from_micros(500));
        let learn = |times: u32, took| (0..times).for_each(|_| pace.learn(took));
        let (quick, stalled) = (Duration::from_micros(200), Duration::from_hours(1));
        learn(20, quick);
        assert!(!pace.is_short(), "trust is earned slowly");
        learn(200, quick);
        assert!(pace.is_short());
        learn(1, stalled);
        assert!(pace.is_short());
        learn(20, quick);
        learn(1, stalled);
        assert!(!pace.is_short());
        learn(100, quick);
        assert!(pace.is_short());
        learn(100, Duration::from_micros(600));
        assert!(!pace.is_short());
    }
}

//! When to try again.

use std::time::Duration;

/// How often, and after which pauses, a handler that failed is called again for the same notification.
///
/// Not at all by default: most failures of a handler are mistakes in it, or in the event. A
/// [`PersistenceError`](es_core::PersistenceError) that [may pass](es_core::PersistenceError::is_transient)
/// is no failure of the handler, and is tried again for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often at most, beyond the first call.
    pub max_retries: u32,
    /// How long to wait before the first; doubled for each one after it.
    pub first_pause: Duration,
    /// How long to wait at most.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// None.
    pub const NONE: Self =
        Self { max_retries: 0, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// For what will pass by itself: 50 ms, 100 ms, and so on up to 5 s, without end.
    pub(crate) const PATIENT: Self = Self {
        max_retries: u32::MAX,
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_secs(5),
    };

    /// For a handler whose events collide with those of somebody else: it sees what the other has
    /// written the next time.
    pub(crate) const CONTENDED: Self = Self {
        max_retries: 10,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(100),
    };

    /// So many, after 100 ms, 200 ms, and so on up to 10 s.
    pub const fn max_retries(retries: u32) -> Self {
        Self {
            max_retries: retries,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
        }
    }

    /// How long to wait after the `failures`-th failure; nothing when it was the last.
    pub(crate) fn pause_after(&self, failures: u32) -> Option<Duration> {
        if failures == 0 || failures > self.max_retries {
            return None;
        }
        let doubled = 2_u32.saturating_pow(failures - 1);
        Some(self.first_pause.saturating_mul(doubled).min(self.longest_pause))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let retries =
            RetryPolicy { longest_pause: Duration::from_millis(250), ..RetryPolicy::max_retries(3) };
        let pauses =
            [1, 2, 3, 4].map(|failures| retries.pause_after(failures).map(|pause| pause.as_millis()));
        assert_eq!(pauses, [Some(100), Some(200), Some(250), None]);
        assert_eq!(RetryPolicy::NONE.pause_after(1), None);
        assert_eq!(RetryPolicy::PATIENT.pause_after(1_000), Some(Duration::from_secs(5)));
    }
}

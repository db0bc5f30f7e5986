//! The retry policy of a processor.

use std::time::Duration;

/// The number of retries, and the pauses between them, when a handler fails for a notification.
///
/// The default is [`NONE`](Self::NONE): most failures of a handler are mistakes in it, or in the event. A
/// [transient](es_core::PersistenceError::is_transient) [`PersistenceError`](es_core::PersistenceError), also
/// as the source of another error, is not a failure of the handler, and is retried without a limit.
///
/// Pauses grow exponentially and have jitter: before the n-th retry the processor waits at least half of
/// `first_pause * 2^(n-1)`, at most all of it, evenly distributed, so that processors that failed together
/// do not retry together. No pause is longer than `longest_pause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The highest number of retries after the first call.
    pub max_retries: u32,
    /// The longest pause before the first retry; doubled for each one after it.
    pub first_pause: Duration,
    /// The upper bound of all pauses.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// No retries.
    pub const NONE: Self =
        Self { max_retries: 0, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// For transient failures: up to 50 ms, 100 ms and so on to 5 s, without an end.
    pub(crate) const TRANSIENT: Self = Self {
        max_retries: u32::MAX,
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_secs(5),
    };

    /// For events that conflict with a concurrent writer's: the next call of the handler reads those. The
    /// limit is for conflicts at the same version, as of a handler that does not read.
    pub(crate) const CONFLICT: Self = Self {
        max_retries: 10,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(100),
    };

    /// At most `retries` retries, after up to 100 ms, 200 ms and so on to 10 s.
    pub const fn max_retries(retries: u32) -> Self {
        Self {
            max_retries: retries,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
        }
    }

    /// Returns the pause after the `failures`-th failure; `None` after the last.
    pub(crate) fn pause_after(&self, failures: u32) -> Option<Duration> {
        let half = self.longest_pause_after(failures)? / 2;
        // Below `half`, so that the sum does not overflow.
        Some(half.saturating_add(half.mul_f64(fastrand::f64())))
    }

    fn longest_pause_after(&self, failures: u32) -> Option<Duration> {
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
            [1, 2, 3, 4].map(|failures| retries.longest_pause_after(failures).map(|pause| pause.as_millis()));
        assert_eq!(pauses, [Some(100), Some(200), Some(250), None]);
        assert_eq!(RetryPolicy::NONE.pause_after(1), None);
        assert_eq!(RetryPolicy::TRANSIENT.longest_pause_after(1_000), Some(Duration::from_secs(5)));
    }

    #[test]
    fn jitter_takes_at_most_half_of_a_pause() {
        for longest_pause in [Duration::ZERO, Duration::from_millis(100), Duration::MAX] {
            let policy = RetryPolicy { first_pause: longest_pause, longest_pause, max_retries: 1 };
            for _ in 0..1_000 {
                let pause = policy.pause_after(1).unwrap_or(Duration::MAX);
                assert!(
                    (longest_pause / 2..=longest_pause).contains(&pause),
                    "{pause:?} of {longest_pause:?}"
                );
            }
        }
        let policy = RetryPolicy::max_retries(1);
        let pauses: std::collections::HashSet<_> = (0..100).map(|_| policy.pause_after(1)).collect();
        assert!(pauses.len() > 1, "processors that failed together do not retry together");
    }
}

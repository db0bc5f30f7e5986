//! The pauses between the attempts of a command.

use std::time::{Duration, Instant};

/// The bound of the first pause: about the time of a commit.
const FIRST_BOUND: Duration = Duration::from_millis(1);
/// The highest bound. Contenders of one process do not pause, so a bound for a few processes is enough.
const HIGHEST_BOUND: Duration = Duration::from_millis(100);

/// Pauses with full jitter: evenly distributed from zero to a bound that doubles, until a time limit.
#[derive(Debug)]
pub(crate) struct Backoff {
    started: Instant,
    time_limit: Duration,
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new(time_limit: Duration) -> Self {
        Self { started: Instant::now(), time_limit, bound: FIRST_BOUND }
    }

    /// Returns the next pause; `None` after the time limit.
    pub(crate) fn next_pause(&mut self) -> Option<Duration> {
        self.pause_after(self.started.elapsed())
    }

    fn pause_after(&mut self, elapsed: Duration) -> Option<Duration> {
        let rest = self.time_limit.checked_sub(elapsed).filter(|rest| !rest.is_zero())?;
        let pause = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(HIGHEST_BOUND);
        Some(pause.min(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_pauses_doubles_and_is_limited() {
        let mut backoff = Backoff::new(Duration::MAX);
        for milliseconds in [1, 2, 4, 8, 16, 32, 64, 100, 100] {
            assert_eq!(backoff.bound, Duration::from_millis(milliseconds));
            assert!(backoff.pause_after(Duration::ZERO).unwrap() <= Duration::from_millis(milliseconds));
        }
    }

    #[test]
    fn pauses_have_full_jitter() {
        let pause = || Backoff::new(Duration::MAX).pause_after(Duration::ZERO).unwrap();
        let pauses: Vec<_> = (0..1_000).map(|_| pause()).collect();
        let shortest = pauses.iter().min().unwrap();
        let longest = pauses.iter().max().unwrap();
        assert!(*shortest < FIRST_BOUND / 4 && *longest > FIRST_BOUND * 3 / 4, "{shortest:?} to {longest:?}");
    }

    #[test]
    fn pauses_end_with_the_time_limit() {
        let mut backoff = Backoff::new(Duration::from_micros(5));
        assert!(backoff.pause_after(Duration::from_micros(2)).unwrap() <= Duration::from_micros(3));
        assert_eq!(backoff.pause_after(Duration::from_micros(5)), None);
        assert_eq!(backoff.pause_after(Duration::from_secs(1)), None);
        assert_eq!(Backoff::new(Duration::ZERO).next_pause(), None);
    }
}

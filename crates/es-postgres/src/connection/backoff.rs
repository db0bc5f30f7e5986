//! Retries with growing pauses and a deadline.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pauses while a lock is polled: it is mostly held for a few milliseconds.
const POLLING_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// The pauses and the deadline of retries.
#[derive(Debug)]
pub(crate) struct Retries {
    deadline: Option<Instant>,
    pause: Duration,
    longest_pause: Duration,
}

impl Retries {
    /// Retries within a time, with exponential pauses from 20 ms to 1 s.
    pub(crate) fn within(time: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(time), pause: FIRST_PAUSE, longest_pause: LONGEST_PAUSE }
    }

    /// Retries within a time, or without end, with exponential pauses from 2 to 50 ms.
    pub(crate) fn polling(time: Option<Duration>) -> Self {
        let (pause, longest_pause) = POLLING_PAUSES;
        Self { deadline: time.and_then(|time| Instant::now().checked_add(time)), pause, longest_pause }
    }

    /// Pauses; false when the time is over.
    pub(crate) async fn again(&mut self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(self.longest_pause);
        true
    }
}

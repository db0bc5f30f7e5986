//! Trying again: with pauses that grow, and not for ever.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often and until when something is tried again.
#[derive(Debug)]
pub(crate) struct Retries {
    deadline: Instant,
    pause: Duration,
}

impl Retries {
    pub(crate) fn within(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, pause: FIRST_PAUSE }
    }

    /// Pauses; false when the time is over.
    pub(crate) async fn again(&mut self) -> bool {
        if Instant::now() >= self.deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

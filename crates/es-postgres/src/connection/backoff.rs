//! Backoff: pauses between attempts that double, with a deadline where there is one.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Duration,
    /// No pause was taken since the start or the last reset.
    is_fresh: bool,
    deadline: Option<Instant>,
}

impl Backoff {
    /// Pauses from the first to the longest, without a deadline.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: first, is_fresh: true, deadline: None }
    }

    /// Pauses from 20 ms to 1 s, until a time has passed.
    pub(crate) fn within(time: Duration) -> Self {
        Self::new(Duration::from_millis(20), Duration::from_secs(1)).until(Some(time))
    }

    /// Sets the deadline, counted from now.
    pub(crate) fn until(mut self, time: Option<Duration>) -> Self {
        self.deadline = time.and_then(|time| Instant::now().checked_add(time));
        self
    }

    /// Returns the next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.is_fresh = false;
        self.pause = (pause * 2).min(self.longest);
        pause
    }

    /// Pauses; false, at once, if the deadline has passed.
    pub(crate) async fn wait(&mut self) -> bool {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        tokio::time::sleep(self.next()).await;
        true
    }

    pub(crate) fn reset(&mut self) {
        (self.pause, self.is_fresh) = (self.first, true);
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

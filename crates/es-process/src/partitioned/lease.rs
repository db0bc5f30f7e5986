//! The lease of a worker, by the clock of its process.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use es_core::Signal;
use parking_lot::Mutex;

/// The end of a lease. It is counted from before the renewal was sent, so that it comes before the end by the
/// datastore's clock, as long as both clocks run at one speed.
#[derive(Clone, Debug)]
pub(super) struct Lease(Arc<Mutex<Instant>>);

impl Lease {
    /// A lease that has ended.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(super) fn extend(&self, until: Instant) {
        *self.0.lock() = until;
    }

    pub(super) fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `work` until the lease is over, and returns `None` then. It is not polled after that: a handler
    /// that was slow begins no commit.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut ended) = (pin!(work), pin!(self.ended()));
        poll_fn(|context| {
            // The timer may be late.
            if self.is_over() || ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// Waits for the end. A signal that is closed meanwhile does not matter.
    async fn ended(&self) {
        let never = Signal::new();
        loop {
            let remaining = self.remaining();
            if remaining.is_zero() {
                return;
            }
            never.closed_timeout(remaining).await;
        }
    }

    pub(super) fn remaining(&self) -> Duration {
        self.0.lock().saturating_duration_since(Instant::now())
    }
}

//! The writer's end of its queue: waiting for what comes, at most until a given time.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use tokio::sync::mpsc::UnboundedReceiver;

/// A queue that one thread receives from. The channel itself has no blocking wait with an end.
pub(crate) struct Inbox<T> {
    receiver: UnboundedReceiver<T>,
    unpark: Waker,
}

struct Unpark(Thread);

impl<T> Inbox<T> {
    /// A queue that the current thread will receive from.
    pub(crate) fn of_this_thread(receiver: UnboundedReceiver<T>) -> Self {
        Self { receiver, unpark: Waker::from(Arc::new(Unpark(thread::current()))) }
    }

    /// The next of what was sent, or nothing when nothing can come any more; pending when nothing has
    /// come until `deadline`.
    pub(crate) fn receive(&mut self, deadline: Option<Instant>) -> Poll<Option<T>> {
        let mut context = Context::from_waker(&self.unpark);
        loop {
            // Asked before each wait: whatever else has parked this thread meanwhile may have used up
            // the unparking.
            if let Poll::Ready(received) = self.receiver.poll_recv(&mut context) {
                return Poll::Ready(received);
            }
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Pending;
            }
            thread::park_timeout(left);
        }
    }

    /// The next of what was sent, if it is there.
    pub(crate) fn try_receive(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Takes no more. What was sent can still be received.
    pub(crate) fn close(&mut self) {
        self.receiver.close();
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

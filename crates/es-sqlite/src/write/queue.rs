//! What waits for the writing connection, in the order in which it came.
//!
//! Adding something wakes nobody by itself: what the caller is about to do itself needs no other
//! thread. Whoever adds must do it, or [call](Queue::call) the writer thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// A queue that the writer thread waits at.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    called: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    is_open: bool,
    /// Whether the writer thread sleeps and nobody has woken it yet.
    is_asleep: bool,
}

/// Why the writer thread was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// Something waits.
    Work,
    /// It is time.
    Deadline,
    /// Nothing waits, and nothing will any more.
    Closing,
}

/// The queue of a datastore, closed when that is gone.
#[derive(Debug)]
pub(crate) struct OwnedQueue<T>(pub(crate) Arc<Queue<T>>);

/// Wakes the writer thread for what waits, at the end of its life.
pub(crate) struct CallWhenDropped<'q, T>(pub(crate) &'q Queue<T>);

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), is_open: true, is_asleep: false };
        Self { state: Mutex::new(state), called: Condvar::new() }
    }

    /// Adds something, or hands it back when the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        if !state.is_open {
            return Err(item);
        }
        state.waiting.push_back(item);
        Ok(())
    }

    /// Puts back what was taken, in its order, before everything else.
    pub(crate) fn put_back(&self, items: impl DoubleEndedIterator<Item = T>) {
        let mut state = self.lock();
        items.rev().for_each(|item| state.waiting.push_front(item));
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.lock().waiting.pop_front()
    }

    /// The next of what waits, if it is wanted.
    pub(crate) fn pop_if(&self, is_wanted: impl FnOnce(&mut T) -> bool) -> Option<T> {
        self.lock().waiting.pop_front_if(is_wanted)
    }

    /// Wakes the writer thread if something waits.
    pub(crate) fn call(&self) {
        let mut state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        self.wake(&mut state);
    }

    /// Takes no more. What waits can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        self.wake(&mut state);
    }

    /// Takes no more, and drops what waits: nobody is there to do it.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.is_open = false;
        let abandoned = std::mem::take(&mut state.waiting);
        // Dropping it tells callers, whose code may come back to the queue.
        drop(state);
        drop(abandoned);
    }

    /// Waits until something waits, at most until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                return Woken::Work;
            }
            if !state.is_open {
                return Woken::Closing;
            }
            state.is_asleep = true;
            let Some(deadline) = deadline else {
                state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.is_asleep = false;
                return Woken::Deadline;
            }
            state = self.called.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// One system call, made only for one who sleeps.
    fn wake(&self, state: &mut State<T>) {
        if std::mem::take(&mut state.is_asleep) {
            self.called.notify_one();
        }
    }

    /// Nothing panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for OwnedQueue<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Drop for CallWhenDropped<'_, T> {
    fn drop(&mut self) {
        self.0.call();
    }
}

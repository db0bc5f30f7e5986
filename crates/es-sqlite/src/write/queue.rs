//! The queue of work for the writing connection, in the order of arrival.
//!
//! Adding an item wakes no thread: an inline commit needs none. The caller must do the work itself, or
//! [wake](Queue::wake_worker) the writer thread.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use parking_lot::{Condvar, Mutex};

/// A queue that the writer thread waits at.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    wake: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    is_open: bool,
    /// True while the writer thread sleeps and has not been woken yet.
    is_asleep: bool,
}

/// Closes a queue when dropped.
#[derive(Debug)]
pub(crate) struct OwnedQueue<T>(pub(crate) Arc<Queue<T>>);

/// Wakes the writer thread when dropped, if the queue has items.
pub(crate) struct WakeOnDrop<'q, T>(pub(crate) &'q Queue<T>);

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: VecDeque::new(), is_open: true, is_asleep: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    /// Adds an item, or returns it if the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if !state.is_open {
            return Err(item);
        }
        state.items.push_back(item);
        Ok(())
    }

    /// Puts items back to the front, in their order.
    pub(crate) fn put_back(&self, items: impl DoubleEndedIterator<Item = T>) {
        let mut state = self.state.lock();
        items.rev().for_each(|item| state.items.push_front(item));
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.state.lock().items.pop_front()
    }

    /// Takes the first item if it meets the condition.
    pub(crate) fn pop_if(&self, condition: impl FnOnce(&T) -> bool) -> Option<T> {
        let mut state = self.state.lock();
        if condition(state.items.front()?) { state.items.pop_front() } else { None }
    }

    /// Wakes the writer thread if the queue has items.
    pub(crate) fn wake_worker(&self) {
        let mut state = self.state.lock();
        if !state.items.is_empty() {
            self.wake(&mut state);
        }
    }

    /// Accepts no more items. Those in the queue can still be taken.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_open = false;
        self.wake(&mut state);
    }

    /// Accepts no more items, and drops those in the queue: the writer thread has ended.
    pub(crate) fn close_and_drain(&self) {
        let mut state = self.state.lock();
        state.is_open = false;
        let items = std::mem::take(&mut state.items);
        // Dropping them notifies callers, which may use the queue again.
        drop(state);
        drop(items);
    }

    /// Waits for an item, at most until `deadline`. Returns false if the queue is empty and closed.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.items.is_empty() || !state.is_open {
                return !state.items.is_empty();
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                state.is_asleep = false;
                return true;
            }
            state.is_asleep = true;
            match deadline {
                Some(deadline) => _ = self.wake.wait_until(&mut state, deadline),
                None => self.wake.wait(&mut state),
            }
        }
    }

    /// Makes the system call only if the writer thread sleeps.
    fn wake(&self, state: &mut State<T>) {
        if std::mem::take(&mut state.is_asleep) {
            self.wake.notify_one();
        }
    }
}

impl<T> Drop for OwnedQueue<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Drop for WakeOnDrop<'_, T> {
    fn drop(&mut self) {
        self.0.wake_worker();
    }
}

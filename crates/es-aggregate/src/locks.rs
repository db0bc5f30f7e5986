//! One lock for each aggregate that has a command at work.
//!
//! Commands on one aggregate conflict with each other, and in one process they need not: they take turns, in
//! the order in which they arrive. The map has entries for the aggregates that are locked or waited for, and
//! no others.

use std::{collections::HashMap, sync::Arc};

use es_core::uuid::Uuid;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The locks of the aggregates of a store.
#[derive(Debug, Default)]
pub(crate) struct Locks(Mutex<HashMap<Uuid, Arc<AsyncMutex<()>>>>);

/// The lock of an aggregate, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock<'l> {
    // Dropped in this order: the entry is removed if no other clone of its lock is left.
    _guard: OwnedMutexGuard<()>,
    _entry: Entry<'l>,
}

impl Locks {
    /// Locks the aggregate.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped future gives up its place in the queue.
    pub(crate) async fn lock(&self, id: Uuid) -> Lock<'_> {
        let lock = Arc::clone(self.0.lock().entry(id).or_default());
        let entry = Entry { locks: self, id };
        Lock { _guard: lock.lock_owned().await, _entry: entry }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// A use of an entry of the map. The last one removes the entry.
#[derive(Debug)]
struct Entry<'l> {
    locks: &'l Locks,
    id: Uuid,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut locks = self.locks.0.lock();
        // Clones are made under the lock of the map only.
        if locks.get(&self.id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::{Context, Poll, Waker},
    };

    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_second_lock_waits_for_the_first_and_other_aggregates_do_not() {
        let locks = Locks::default();
        let Poll::Ready(first) = poll(pin!(locks.lock(A))) else { panic!("the lock is free") };
        let mut second = pin!(locks.lock(A));
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(pin!(locks.lock(B))).is_ready());
        drop(first);
        assert!(poll(second).is_ready());
        assert_eq!(locks.len(), 0);
    }

    #[test]
    fn entries_are_removed_with_their_last_use() {
        let locks = Locks::default();
        {
            let Poll::Ready(_first) = poll(pin!(locks.lock(A))) else { panic!("the lock is free") };
            {
                let mut dropped = pin!(locks.lock(A));
                assert!(poll(dropped.as_mut()).is_pending());
            }
            let _never_polled = locks.lock(B);
            assert_eq!(locks.len(), 1, "a dropped waiter leaves the entry of the holder");
        }
        assert_eq!(locks.len(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn commands_that_contend_or_are_aborted_leave_no_entries() {
        let (locks, inside) = (Arc::new(Locks::default()), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let (locks, inside) = (Arc::clone(&locks), Arc::clone(&inside));
                tokio::spawn(async move {
                    let _lock = locks.lock(A).await;
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    // Aborted tasks end here, too.
                    let _inside = Leaves(inside);
                    for _ in 0..number % 4 {
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            if number % 3 == 0 {
                task.abort();
            }
            assert!(task.await.map_or_else(|error| error.is_cancelled(), |()| true));
        }
        assert_eq!(locks.len(), 0);
    }

    struct Leaves(Arc<AtomicUsize>);

    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

//! Closes connections beyond the pool size once they have been idle for a while.
//!
//! A burst of callers is mostly followed by the next one. Closing the extra connections as soon as another
//! one is free, and opening them again, cost more than the requests: `PostgreSQL insert, 32 tasks on 4 hot
//! aggregates` opened a connection for every three events.

use std::time::Duration;

use deadpool::managed::{Manager, Pool, WeakPool};
use tokio::runtime::Handle;

use crate::task_permit::{TaskPermit, TaskSlot};

/// The time after which an idle extra connection is closed.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Closes the idle extra connections of a pool, by one task that runs while there are any.
#[derive(Debug)]
pub(crate) struct IdleReaper {
    keep: usize,
    idle_time: Duration,
    slot: TaskSlot,
}

impl IdleReaper {
    pub(crate) fn beyond(keep: usize) -> Self {
        Self { keep, idle_time: IDLE_TIME, slot: TaskSlot::default() }
    }

    /// Starts the task if the pool has extra connections. Called after a connection was returned.
    pub(crate) fn watch<M>(&self, pool: &Pool<M>)
    where
        M: Manager<Type: Send> + Sync + 'static,
    {
        // Fast path: no extra connections are open.
        if pool.status().size <= self.keep {
            return;
        }
        // A connection that is returned outside of a runtime cannot be used again.
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(permit) = self.slot.acquire() {
            runtime.spawn(reap(pool.weak(), self.keep, self.idle_time, permit));
        }
    }
}

async fn reap<M: Manager>(pool: WeakPool<M>, keep: usize, idle_time: Duration, mut permit: TaskPermit) {
    loop {
        tokio::time::sleep(idle_time).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut extra = pool.status().size.saturating_sub(keep);
        // The pool visits the connection that was used last at the end.
        drop(pool.retain(|_, metrics| {
            let is_closed = extra > 0 && metrics.last_used() >= idle_time;
            extra -= usize::from(is_closed);
            !is_closed
        }));
        if permit.release_if(|| pool.status().size <= keep) {
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test panics where it fails")]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use deadpool::managed::{Manager, Metrics, Pool, RecycleResult};

    use super::IdleReaper;

    #[derive(Debug)]
    struct Numbers;

    impl Manager for Numbers {
        type Type = u8;
        type Error = Infallible;

        async fn create(&self) -> Result<u8, Infallible> {
            Ok(0)
        }

        async fn recycle(&self, _: &mut u8, _: &Metrics) -> RecycleResult<Infallible> {
            Ok(())
        }
    }

    async fn use_all(pool: &Pool<Numbers>, reaper: &IdleReaper) {
        let mut used = Vec::new();
        while used.len() < pool.status().max_size {
            used.push(pool.get().await.unwrap());
        }
        drop(used);
        reaper.watch(pool);
    }

    #[tokio::test]
    async fn idle_extra_connections_are_closed() {
        let pool = Pool::builder(Numbers).max_size(5).build().unwrap();
        let reaper = IdleReaper { idle_time: Duration::from_millis(1), ..IdleReaper::beyond(2) };
        // Several rounds: the task ends when no extra connections are left, and is started again.
        for _ in 0..3 {
            use_all(&pool, &reaper).await;
            while pool.status().size > 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(pool.status().size, 2);
        }
    }

    #[tokio::test]
    async fn recently_used_connections_are_kept() {
        let pool = Pool::builder(Numbers).max_size(5).build().unwrap();
        let reaper = IdleReaper::beyond(2);
        use_all(&pool, &reaper).await;
        tokio::task::yield_now().await;
        assert_eq!(pool.status().size, 5);
    }
}

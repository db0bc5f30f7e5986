//! Connections beyond those that are kept: opened when all are in use, closed when nobody has needed
//! them for a while.
//!
//! Whoever needs several at once mostly does so again in a moment. To close them as soon as another one
//! is free, and make them again, cost more than what they were for: `PostgreSQL insert, 32 tasks on 4 hot
//! aggregates` opened a connection for every three events.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use deadpool::managed::{Manager, Pool, WeakPool};
use tokio::runtime::Handle;

/// How long a spare connection waits for somebody who needs it.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// The closing of a pool's spare connections: by one task, while there are any.
#[derive(Debug)]
pub(crate) struct Spares {
    keep: usize,
    idle_time: Duration,
    is_closing: Arc<Mutex<bool>>,
}

impl Spares {
    /// Connections are spare when there are more than are to be kept.
    pub(crate) fn beyond(keep: usize) -> Self {
        Self { keep, idle_time: IDLE_TIME, is_closing: Arc::default() }
    }

    /// Sees to it that spare connections are closed in time.
    pub(crate) fn watch<M>(&self, pool: &Pool<M>)
    where
        M: Manager<Type: Send> + Sync + 'static,
    {
        // The lock is for the few.
        if pool.status().size <= self.keep {
            return;
        }
        // Outside of a runtime nobody gives back a connection that could be used again.
        let Ok(runtime) = Handle::try_current() else { return };
        if !std::mem::replace(&mut *lock(&self.is_closing), true) {
            let closing = Closing {
                keep: self.keep,
                idle_time: self.idle_time,
                is_closing: Arc::clone(&self.is_closing),
                is_over: false,
            };
            runtime.spawn(closing.run(pool.weak()));
        }
    }
}

/// The right to close spare connections.
struct Closing {
    keep: usize,
    idle_time: Duration,
    is_closing: Arc<Mutex<bool>>,
    is_over: bool,
}

impl Closing {
    async fn run<M: Manager>(mut self, pool: WeakPool<M>) {
        loop {
            tokio::time::sleep(self.idle_time).await;
            let Some(pool) = pool.upgrade() else { return };
            self.close_idle(&pool);
            if self.is_over(&pool) {
                return;
            }
        }
    }

    fn close_idle<M: Manager>(&self, pool: &Pool<M>) {
        let mut spare = pool.status().size.saturating_sub(self.keep);
        // The one that was used last is the last.
        drop(pool.retain(|_, metrics| {
            let is_closed = spare > 0 && metrics.last_used() >= self.idle_time;
            spare -= usize::from(is_closed);
            !is_closed
        }));
    }

    /// Gives the right back if none is spare any more; whoever gives one back from now on takes it.
    fn is_over<M: Manager>(&mut self, pool: &Pool<M>) -> bool {
        let mut is_closing = lock(&self.is_closing);
        self.is_over = pool.status().size <= self.keep;
        *is_closing = !self.is_over;
        self.is_over
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // The task did not end by itself: its runtime was shut down, or the pool is gone.
        if !self.is_over {
            *lock(&self.is_closing) = false;
        }
    }
}

fn lock(is_closing: &Mutex<bool>) -> MutexGuard<'_, bool> {
    // Nothing panics while it is held.
    is_closing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use deadpool::managed::{Manager, Metrics, Pool, RecycleResult};

    use super::Spares;

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

    async fn use_all(pool: &Pool<Numbers>, spares: &Spares) {
        let mut used = Vec::new();
        while used.len() < pool.status().max_size {
            used.push(pool.get().await.unwrap());
        }
        drop(used);
        spares.watch(pool);
    }

    #[tokio::test]
    async fn those_that_nobody_needs_are_closed_and_the_others_kept() {
        let pool = Pool::builder(Numbers).max_size(5).build().unwrap();
        let spares = Spares { idle_time: Duration::from_millis(1), ..Spares::beyond(2) };
        // Again, since who closes them ends when there are none.
        for _ in 0..3 {
            use_all(&pool, &spares).await;
            while pool.status().size > 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(pool.status().size, 2);
        }
    }

    #[tokio::test]
    async fn those_that_may_be_needed_are_kept() {
        let pool = Pool::builder(Numbers).max_size(5).build().unwrap();
        let spares = Spares::beyond(2);
        use_all(&pool, &spares).await;
        tokio::task::yield_now().await;
        assert_eq!(pool.status().size, 5);
    }
}

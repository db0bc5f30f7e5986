//! A pool of idle encoders and decoders.

use std::{
    fmt,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
};

/// Determined once: it requires reading files of the operating system.
static THREADS_AT_ONCE: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

/// Keeps objects that are expensive to create and cheap to reuse.
///
/// The maximum of idle objects is the number of threads that can run at once; more exist only while more
/// are in use. Each compressor has a pool, instead of a thread-local variable, because asynchronous programs
/// have many threads, and because the objects are dropped with the compressor.
pub(crate) struct Pool<T> {
    idle: Mutex<Vec<T>>,
}

impl<T> Pool<T> {
    pub(crate) fn new() -> Self {
        Self { idle: Mutex::default() }
    }

    /// Uses an idle object, or a new one. The lock is not held meanwhile.
    pub(crate) fn with<R, E>(
        &self,
        create: impl FnOnce() -> Result<T, E>,
        work: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        // A statement of its own: within a `match`, the lock would be held until its end.
        let idle = self.idle().pop();
        let mut item = match idle {
            Some(item) => item,
            None => create()?,
        };
        let result = work(&mut item)?;
        let mut idle = self.idle();
        if idle.len() < *THREADS_AT_ONCE {
            idle.push(item);
        }
        Ok(result)
    }

    /// The list is consistent after a panic elsewhere: it is only pushed to and popped from.
    fn idle(&self) -> MutexGuard<'_, Vec<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, convert::Infallible};

    use super::*;

    #[test]
    fn returned_objects_are_reused() {
        let (pool, created) = (Pool::new(), Cell::new(0));
        let create = || {
            created.set(created.get() + 1);
            Ok::<_, Infallible>("an encoder")
        };
        for _ in 0..3 {
            let Ok(()) = pool.with(create, |_| Ok(()));
        }
        assert_eq!(created.get(), 1);
    }

    #[test]
    fn the_pool_keeps_no_more_objects_than_threads_can_run_at_once() {
        fn use_at_once(pool: &Pool<&str>, times: usize) -> Result<(), Infallible> {
            if times == 0 { Ok(()) } else { pool.with(|| Ok("an encoder"), |_| use_at_once(pool, times - 1)) }
        }
        let pool = Pool::new();
        let Ok(()) = use_at_once(&pool, *THREADS_AT_ONCE + 2);
        assert_eq!(pool.idle().len(), *THREADS_AT_ONCE);
    }
}

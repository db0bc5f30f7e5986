//! Whether one task writes alone, so that nobody needs to be waited for.
//!
//! A task that is about to commit on its own thread yields first, so that requests of others get into the same
//! commit. In a runtime of several threads that hands the task over to another one, which took 25 of the 40 µs of a
//! commit that is not flushed: too much where there are no others.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use tokio::task::{Id, try_id};

/// How long a task goes on without giving way: no longer than one commit may take that is made on its thread.
const TURN: Duration = Duration::from_micros(500);

/// How often a task must have given way in a row, and nobody came, until it goes on. One that sometimes writes several
/// requests at once never gets there.
const TIMES_ALONE: u32 = 8;

/// The task that has made the last commits on a caller's thread, if its request was the only one in each.
#[derive(Debug, Default)]
pub(crate) struct Soloist(Mutex<Option<Solo>>);

#[derive(Clone, Copy, Debug)]
struct Solo {
    caller: Caller,
    gave_way: Instant,
    times_alone: u32,
}

/// The task that commits; outside of a task, as in `block_on` or another runtime, its thread. Several tasks
/// of another runtime on one thread count as one caller. While they write at the same time, they share
/// commits, and yield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    Task(Id),
    Thread(ThreadId),
}

impl Caller {
    fn current() -> Self {
        try_id().map_or_else(|| Self::Thread(thread::current().id()), Self::Task)
    }
}

impl Soloist {
    /// Whether the current task has been writing alone, and may do so once more without giving way.
    pub(crate) fn goes_on(&self) -> bool {
        self.lock().is_some_and(|solo| {
            solo.caller == Caller::current()
                && solo.times_alone >= TIMES_ALONE
                && solo.gave_way.elapsed() < TURN
        })
    }

    /// Learns how many requests the current task has just committed, and when it gave way before, if it did.
    pub(crate) fn has_written(&self, requests: usize, gave_way: Option<Instant>) {
        let mut solo = self.lock();
        let caller = Some(Caller::current()).filter(|_| requests == 1);
        *solo = caller.and_then(|caller| {
            let before = solo.filter(|before| before.caller == caller);
            let Some(gave_way) = gave_way else { return before };
            let times_alone = before.map_or(0, |before| before.times_alone).saturating_add(1);
            Some(Solo { caller, gave_way, times_alone })
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Solo>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Commits of the current task, each with so many requests; it gives way to others before each.
    fn write(soloist: &Soloist, commits: u32, requests: usize) {
        (0..commits).for_each(|_| soloist.has_written(requests, Some(Instant::now() + TURN)));
    }

    /// A caller inside `block_on`, outside of any task, yielded before each commit.
    #[tokio::test]
    async fn a_task_or_block_on_that_writes_alone_may_skip_the_yield() {
        let alone = || async {
            let soloist = Soloist::default();
            write(&soloist, TIMES_ALONE - 1, 1);
            assert!(!soloist.goes_on());
            write(&soloist, 1, 1);
            assert!(soloist.goes_on());
            soloist.has_written(1, None);
            assert!(soloist.goes_on());
            soloist.has_written(1, Instant::now().checked_sub(TURN));
            assert!(!soloist.goes_on(), "it is the turn of others");
        };
        tokio::spawn(alone()).await.unwrap();
        alone().await;
    }

    #[tokio::test]
    async fn who_has_company_gives_way() {
        let soloist = Arc::new(Soloist::default());
        for requests in [2, 0] {
            assert_eq!(in_a_task(&soloist, requests).await, (true, false), "{requests} requests");
        }
        assert_eq!(in_a_task(&soloist, 1).await, (true, true));
        assert!(!soloist.goes_on(), "outside of the task");
    }

    /// Whether a task goes on after it has written alone, and then after so many requests at once.
    async fn in_a_task(soloist: &Arc<Soloist>, requests: usize) -> (bool, bool) {
        let soloist = Arc::clone(soloist);
        let outcomes = async move {
            write(&soloist, TIMES_ALONE, 1);
            let alone = soloist.goes_on();
            write(&soloist, 1, requests);
            (alone, soloist.goes_on())
        };
        tokio::spawn(outcomes).await.unwrap()
    }
}

//! Whether one task writes alone, so that nobody needs to be waited for.
//!
//! A task that is about to commit on its own thread yields first, so that requests of others get into the same
//! commit. In a runtime of several threads that hands the task over to another one, which took 25 of the 40 µs of a
//! commit that is not flushed: too much where there are no others.

use std::sync::{Mutex, PoisonError};

use tokio::task::{Id, try_id};

/// Of how many commits that a task makes alone one gives others their turn: who begins to write on the same thread is
/// not kept waiting for long.
const TURN: u32 = 16;

/// The task that made the last commit on a caller's thread, if its request was the only one.
#[derive(Debug, Default)]
pub(crate) struct Soloist(Mutex<Option<Solo>>);

#[derive(Debug)]
struct Solo {
    task: Id,
    commits: u32,
}

impl Soloist {
    /// Whether the current task has written alone of late, and may do so again without giving way.
    pub(crate) fn goes_on(&self) -> bool {
        let solo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        solo.as_ref().is_some_and(|solo| try_id() == Some(solo.task) && solo.commits % TURN != 0)
    }

    /// Learns how many requests the current task has just committed.
    pub(crate) fn has_written(&self, requests: usize) {
        let mut solo = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = solo.take();
        // Outside of a task, as in another runtime, nobody can be told from others.
        *solo = try_id().filter(|_| requests == 1).map(|task| match before {
            Some(before) if before.task == task => Solo { task, commits: before.commits.wrapping_add(1) },
            _ => Solo { task, commits: 1 },
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_writes_alone_goes_on_and_gives_way_now_and_then() {
        let soloist = Arc::new(Soloist::default());
        let shared = Arc::clone(&soloist);
        let went_on = tokio::spawn(async move {
            let mut went_on = 0;
            for _ in 0..10 * TURN {
                went_on += u32::from(shared.goes_on());
                shared.has_written(1);
            }
            went_on
        });
        // The first one, and one in each turn.
        assert_eq!(went_on.await.unwrap(), 10 * TURN - 10);
    }

    #[tokio::test]
    async fn who_has_company_gives_way() {
        let soloist = Arc::new(Soloist::default());
        let in_a_task = async |requests| {
            let shared = Arc::clone(&soloist);
            let outcomes = async move {
                let before = shared.goes_on();
                shared.has_written(requests);
                (before, shared.goes_on())
            };
            tokio::spawn(outcomes).await.unwrap()
        };
        assert_eq!(in_a_task(1).await, (false, true));
        assert_eq!(in_a_task(1).await, (false, true), "another task");
        assert_eq!(in_a_task(2).await, (false, false), "together with another request");
        assert_eq!(in_a_task(0).await, (false, false), "somebody else was faster");
    }
}

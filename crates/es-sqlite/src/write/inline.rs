//! Inline commits: small requests are committed on the caller's own thread, together with the other waiting
//! ones.
//!
//! An optimisation: without this module, the writer thread commits all requests.
//!
//! Handing a request to the writer thread and being woken by it costs some 100 µs on a machine whose cores
//! sleep in between. A commit of one event takes about 150 µs, and one of ten that fill pages 280 µs, on a
//! disk that flushes in 100 µs. In memory, an insert by the writer thread took 74 µs where Python's driver
//! takes 19.
//!
//! The caller's thread belongs to its runtime and must not be blocked. An inline commit
//! - is tried only while small commits take less than [`INLINE_COMMIT_LATENCY`] on average;
//! - takes at most [`INLINE_LIMITS`] of requests;
//! - never blocks: on contention with another call or connection, it requeues the requests for the writer
//!   thread, which waits for locks and reports errors;
//! - leaves checkpoints to the writer thread.

use std::{
    sync::Arc,
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::task::{Id, try_id, yield_now};

use super::{
    checkpoint,
    committer::{Command, Committer, SharedCommitter},
    connection::CommitError,
    group::Group,
    request::Request,
};
use crate::limits::{AverageLatency, INLINE_COMMIT_LATENCY, INLINE_LIMITS};

/// The time for which a task skips yields; the average time up to which commits are inline.
const MAX_TIME_WITHOUT_YIELD: Duration = INLINE_COMMIT_LATENCY;

/// The number of yields in a row after which the task was still alone, until it skips them. A task that
/// sometimes writes several requests at once never gets there.
const MIN_SOLO_YIELDS: u32 = 8;

/// The inline commits of a datastore.
pub(crate) struct InlineCommits {
    committer: SharedCommitter,
    latency: Arc<AverageLatency>,
    solo: SoloWriter,
}

impl InlineCommits {
    pub(crate) fn new(committer: SharedCommitter, latency: Arc<AverageLatency>) -> Self {
        Self { committer, latency, solo: SoloWriter::default() }
    }

    /// Returns true if the request may be committed inline.
    pub(crate) fn accepts(&self, request: &Request) -> bool {
        INLINE_LIMITS.contain(request.rows(), request.bytes()) && self.latency.is_short()
    }

    /// Commits waiting requests, unless another call or connection is in the way.
    pub(crate) async fn commit(&self) {
        let mut yielded = None;
        if !self.solo.may_skip_yield() {
            // Other tasks may be about to add requests to the same commit. In a runtime other than Tokio's,
            // this wakes the task at once.
            yield_now().await;
            yielded = Some(Instant::now());
        }
        if let Some(mut committer) = self.committer.try_lock()
            && let Some(committer) = committer.as_mut()
        {
            let requests = committer.commit_inline();
            self.solo.record_commit(requests, yielded);
        }
    }
}

impl Committer {
    /// Commits a group of waiting requests and returns their number. On contention it requeues them.
    fn commit_inline(&self) -> usize {
        let limits = self.limits.min(INLINE_LIMITS);
        let mut group = Group::default();
        self.gather(&mut group, limits);
        if group.requests.is_empty() {
            return 0;
        }
        if let Err(error) = self.writing.begin_without_waiting() {
            tracing::trace!(%error, "left to the writer thread");
            self.requeue(group);
            return 0;
        }
        let committed = self.transact(&mut group, limits);
        if matches!(committed, Err(CommitError::RetryIndividually(_))) {
            self.requeue(group);
            return 0;
        }
        let requests = group.requests.len();
        self.reply(group, committed.map_err(Into::into));
        if checkpoint::needs_checkpoint() {
            // If the queue is closed, closing the database makes the checkpoint.
            let _ = self.queue.push(Command::Checkpoint);
        }
        requests
    }

    fn requeue(&self, group: Group) {
        self.queue.put_back(group.requests.into_iter().map(Command::Append));
    }
}

/// The task that made the last inline commits, if its request was the only one in each.
///
/// A task yields before it commits inline, so that requests of other tasks get into the same commit. In a
/// runtime of several threads that moves the task to another thread, which took 25 of the 40 µs of a commit
/// without a flush: too much if no other task writes.
#[derive(Debug, Default)]
struct SoloWriter(Mutex<Option<Solo>>);

#[derive(Clone, Copy, Debug)]
struct Solo {
    caller: Caller,
    yielded: Instant,
    yields: u32,
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

impl SoloWriter {
    /// Returns true if the current task writes alone and has yielded recently.
    fn may_skip_yield(&self) -> bool {
        self.0.lock().is_some_and(|solo| {
            solo.caller == Caller::current()
                && solo.yields >= MIN_SOLO_YIELDS
                && solo.yielded.elapsed() < MAX_TIME_WITHOUT_YIELD
        })
    }

    /// Records the number of requests in a commit of the current task, and the time of its yield before, if
    /// any.
    fn record_commit(&self, requests: usize, yielded: Option<Instant>) {
        let mut solo = self.0.lock();
        let caller = Some(Caller::current()).filter(|_| requests == 1);
        *solo = caller.and_then(|caller| {
            let before = solo.filter(|before| before.caller == caller);
            let Some(yielded) = yielded else { return before };
            let yields = before.map_or(0, |before| before.yields).saturating_add(1);
            Some(Solo { caller, yielded, yields })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records commits of the current task with this number of requests, each after a yield.
    fn write(solo: &SoloWriter, commits: u32, requests: usize) {
        let yielded = || Instant::now() + MAX_TIME_WITHOUT_YIELD;
        (0..commits).for_each(|_| solo.record_commit(requests, Some(yielded())));
    }

    /// A caller inside `block_on`, outside of any task, yielded before each commit.
    #[tokio::test]
    async fn a_task_or_block_on_that_writes_alone_may_skip_the_yield() {
        let alone = || async {
            let solo = SoloWriter::default();
            write(&solo, MIN_SOLO_YIELDS - 1, 1);
            assert!(!solo.may_skip_yield());
            write(&solo, 1, 1);
            assert!(solo.may_skip_yield());
            solo.record_commit(1, None);
            assert!(solo.may_skip_yield());
            solo.record_commit(1, Instant::now().checked_sub(MAX_TIME_WITHOUT_YIELD));
            assert!(!solo.may_skip_yield(), "the last yield is too long ago");
        };
        tokio::spawn(alone()).await.unwrap();
        alone().await;
    }

    #[tokio::test]
    async fn a_task_that_shares_commits_yields() {
        let solo = Arc::new(SoloWriter::default());
        for requests in [2, 0] {
            assert_eq!(in_a_task(&solo, requests).await, (true, false), "{requests} requests");
        }
        assert_eq!(in_a_task(&solo, 1).await, (true, true));
        assert!(!solo.may_skip_yield(), "outside of the task");
    }

    /// Returns whether a task may skip the yield after it has written alone, and after a commit of
    /// `requests`.
    async fn in_a_task(solo: &Arc<SoloWriter>, requests: usize) -> (bool, bool) {
        let solo = Arc::clone(solo);
        let outcomes = async move {
            write(&solo, MIN_SOLO_YIELDS, 1);
            let alone = solo.may_skip_yield();
            write(&solo, 1, requests);
            (alone, solo.may_skip_yield())
        };
        tokio::spawn(outcomes).await.unwrap()
    }
}

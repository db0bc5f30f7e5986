//! Fault hooks for tests: points at which a test can pause a recorder or inject a fault.
//!
//! A reader could miss an event only between two statements, which a test cannot hit by timing. Programs in
//! production do not set hooks: they are public with the feature `test-hooks` alone.

#![cfg_attr(not(feature = "test-hooks"), allow(dead_code, unreachable_pub, reason = "only tests set hooks"))]

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

/// Receives each point that a recorder reaches; the recorder waits for the future.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use es_postgres::{FaultPoint, FaultHooks, PostgresOptions};
///
/// #[derive(Default)]
/// struct CountGroups(AtomicUsize);
///
/// impl FaultHooks for CountGroups {
///     fn reached(&self, point: FaultPoint) -> es_postgres::HookFuture<'_> {
///         if point == FaultPoint::GroupFormed {
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///         Box::pin(async {})
///     }
/// }
/// let options = PostgresOptions::new("events").hooks(CountGroups::default());
/// # let _ = options;
/// ```
pub trait FaultHooks: Send + Sync + 'static {
    /// Called at each point.
    fn reached(&self, point: FaultPoint) -> HookFuture<'_>;
}

/// The future of a hook, for which the recorder waits.
pub type HookFuture<'a> = BoxFuture<'a, ()>;

/// A point that a recorder reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// The writer has formed a group and is about to send it.
    GroupFormed,
    /// The server has answered a group, and its callers are about to get their results.
    GroupAnswered,
    /// The writer has lost its connection and is about to recover the outcome of a request.
    OutcomeDoubtful,
    /// A request was not appended, because its tracking position is locked by another transaction; it is
    /// about to be retried.
    PositionLocked,
    /// A reader has met a gap and is about to list the writing transactions.
    GapFound,
    /// A reader has listed the transactions that were writing when it met a gap.
    HorizonTaken,
    /// Some of these transactions are open; the reader is about to wait.
    WritersPending,
    /// A waiting reader has listed the writing transactions again.
    WritersListed,
    /// All of these transactions have ended; the reader is about to read again.
    HorizonPassed,
    /// A reader has found a standby behind what is recorded, and is about to read it again.
    StandbyBehind,
    /// A poll for commits of others has ended, and has woken the tasks that wait for them.
    Polled,
    /// A `NOTIFY` is about to be sent.
    Notifying,
    /// A connection listens for notifications of a table.
    Listening,
    /// A projector has begun a transaction.
    ProjectorBegun,
    /// A projector has recorded the position, and is about to call its handlers.
    ProjectorTracked,
    /// The handlers of a projector have returned, and it is about to commit.
    ProjectorHandled,
    /// A projector has committed, or failed to.
    ProjectorCommitted,
}

/// The hooks of a datastore, if a test has installed any.
#[derive(Clone, Default)]
pub(crate) struct InstalledHooks(Option<Arc<dyn FaultHooks>>);

impl InstalledHooks {
    pub(crate) fn new(hooks: impl FaultHooks) -> Self {
        Self(Some(Arc::new(hooks)))
    }

    pub(crate) async fn reached(&self, point: FaultPoint) {
        if let Some(hooks) = &self.0 {
            hooks.reached(point).await;
        }
    }
}

impl fmt::Debug for InstalledHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

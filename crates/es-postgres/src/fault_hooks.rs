//! A seam for tests: the points that a recorder passes, and a chance to hold it there.
//!
//! Whether a reader can miss an event is decided between two statements, and no test meets such a
//! moment by timing. Programs in production leave this alone.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

/// Is told each point that a recorder passes; the recorder goes on when the future is done.
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

/// What a hook does before the recorder goes on.
pub type HookFuture<'a> = BoxFuture<'a, ()>;

/// A point that a recorder passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// The writer has formed a group and is about to send it.
    GroupFormed,
    /// The server has answered a group, and its callers are about to be told.
    GroupAnswered,
    /// The writer has lost its connection and is about to find out what became of a request.
    OutcomeDoubtful,
    /// A request was not appended, because its tracking position is locked by another transaction; it is about
    /// to be retried.
    PositionLocked,
    /// A reader has met a gap and is about to ask who is writing.
    GapFound,
    /// A reader knows who was writing when it met a gap.
    HorizonTaken,
    /// Some of those have not finished; the reader is about to wait.
    WritersPending,
    /// A waiting reader has listed the writers again.
    WritersListed,
    /// All of those have finished; the reader is about to read again.
    HorizonPassed,
    /// Somebody has looked for what others have recorded, in vain or not, and has woken those who wait
    /// for it.
    Polled,
    /// A hint for other processes is about to be sent.
    Hinting,
    /// A connection listens for hints of a table.
    Listening,
    /// A projector has begun a transaction.
    ProjectorBegun,
    /// A projector has inserted the position, and is about to call its handlers.
    ProjectorTracked,
    /// The handlers of a projector are done, and it is about to commit.
    ProjectorHandled,
    /// A projector has committed, or failed to.
    ProjectorCommitted,
}

/// The hooks of a datastore; none unless a test sets them.
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

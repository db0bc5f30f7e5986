//! A seam for tests of faults: what the writer is about to do, and a chance to hold or fail it.
//!
//! Crashes, failed commits and slow disks are rules of this crate's contract; a test that hopes to
//! meet them by timing proves nothing. Programs in production leave this alone.

use std::{fmt, sync::Arc};

use rusqlite::ffi;

/// Is told each step of the writer; blocking here holds the writer.
///
/// Most commits run on the writer thread, and small ones on callers' threads while commits are
/// [short](crate::SqliteOptions::inline_commits): one that is held up here is not.
///
/// ```
/// use es_sqlite::{Fault, SqliteOptions, FaultHooks, FaultPoint};
///
/// /// Every commit fails as on a failing disk.
/// struct FailingDisk;
///
/// impl FaultHooks for FailingDisk {
///     fn before(&self, step: FaultPoint) -> Result<(), Fault> {
///         if step == FaultPoint::Commit { Err(Fault::Io) } else { Ok(()) }
///     }
/// }
/// let options = SqliteOptions::new("events.db").hooks(FailingDisk);
/// # let _ = options;
/// ```
pub trait FaultHooks: Send + Sync + 'static {
    /// Called before each step, on the thread that does it.
    ///
    /// # Errors
    /// A fault makes the step fail as if SQLite had failed so.
    fn before(&self, step: FaultPoint) -> Result<(), Fault>;
}

/// A step of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// The transaction of a group, or of a projection, begins. When it fails on a caller's thread, the
    /// writer thread tries again.
    Begin,
    /// One request of the group is appended, or the position of a projection, whose notifications
    /// have been handled.
    Append,
    /// The transaction commits. A fault leaves it uncommitted.
    Commit,
    /// The commit has taken effect and is about to be reported. A fault makes the writer believe
    /// that it failed.
    Report,
    /// A commit that the disk failed has left nothing, and what may stand of it in the log is about to
    /// be overwritten. A fault leaves it there.
    Overwrite,
    /// The callers are about to be told their results. A fault means nothing here.
    Reply,
}

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Another connection holds the lock beyond the timeout.
    Busy,
    /// The disk is full.
    Full,
    /// The disk fails.
    Io,
}

impl Fault {
    fn into_error(self) -> rusqlite::Error {
        let code = match self {
            Self::Busy => ffi::SQLITE_BUSY,
            Self::Full => ffi::SQLITE_FULL,
            Self::Io => ffi::SQLITE_IOERR_FSYNC,
        };
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }
}

/// The hooks of a datastore; none unless a test sets them.
#[derive(Clone, Default)]
pub(crate) struct InstalledHooks(Option<Arc<dyn FaultHooks>>);

impl InstalledHooks {
    pub(crate) fn new(hooks: impl FaultHooks) -> Self {
        Self(Some(Arc::new(hooks)))
    }

    pub(crate) fn before(&self, step: FaultPoint) -> rusqlite::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(hooks) => hooks.before(step).map_err(Fault::into_error),
        }
    }
}

impl fmt::Debug for InstalledHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "set" } else { "none" })
    }
}

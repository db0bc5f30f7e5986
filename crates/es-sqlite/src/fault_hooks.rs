//! Hooks with which tests delay or fail the steps of a write.
//!
//! Crashes, failed commits and slow disks are part of this crate's contract; a test that relies on timing to
//! meet them proves nothing. Programs in production do not set hooks: they are public with the
//! feature `test-hooks` alone.

#![cfg_attr(not(feature = "test-hooks"), allow(dead_code, unreachable_pub, reason = "only tests set hooks"))]

use std::{fmt, sync::Arc};

use rusqlite::ffi;

/// Receives each step of a write; blocking here blocks the write.
///
/// Most commits run on the writer thread, and small ones on callers' threads while commits are
/// [short](crate::SqliteOptions::inline_commits), which commits delayed here are not.
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
    /// Called before each step, on the thread that makes it.
    ///
    /// # Errors
    /// A fault makes the step fail with that error of SQLite.
    fn before(&self, step: FaultPoint) -> Result<(), Fault>;
}

/// A step of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultPoint {
    /// The transaction of a group or of a projection begins. If it fails on a caller's thread, the writer
    /// thread retries.
    Begin,
    /// One request of a group is appended, or the position of a projection after its handlers.
    Append,
    /// The transaction commits. A fault leaves it uncommitted.
    Commit,
    /// The commit has taken effect and is about to be reported. A fault reports it as failed.
    Report,
    /// A failed commit is rolled back, and its possible rest in the log is about to be overwritten. A fault
    /// leaves it there.
    Overwrite,
    /// The outcomes are about to be sent to the callers. A fault has no effect.
    Reply,
}

/// The error of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Another connection holds the lock for longer than the timeout.
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

/// The hooks of a datastore, if a test sets them.
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

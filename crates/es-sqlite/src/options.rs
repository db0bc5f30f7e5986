//! The settings of a database.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{fault_hooks::InstalledHooks, limits::Limits};

/// SQLite counts milliseconds in 32 bits.
const MAX_LOCK_TIMEOUT: Duration = Duration::from_secs(24 * 24 * 60 * 60);

/// With a shorter interval, the writer thread would do little else.
const MIN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// An [`Instant`](std::time::Instant) cannot be arbitrarily far in the future.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The settings of a database; each has a default that suits most programs.
///
/// ```
/// use std::time::Duration;
/// use es_sqlite::{SqliteOptions, Synchronous};
///
/// let options = SqliteOptions::new("events.db")
///     .lock_timeout(Duration::from_secs(10))
///     .synchronous(Synchronous::Full);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) database: PathBuf,
    pub(crate) lock_timeout: Duration,
    pub(crate) create_table: bool,
    pub(crate) synchronous: Synchronous,
    pub(crate) readers: NonZeroUsize,
    /// The limits of one group; a larger request is a group of its own.
    pub(crate) group: Limits,
    pub(crate) queue_bytes: NonZeroU32,
    pub(crate) event_bytes: Option<NonZeroU32>,
    pub(crate) database_bytes: Option<NonZeroU64>,
    pub(crate) poll_interval: Duration,
    pub(crate) inline_commits: bool,
    pub(crate) hooks: InstalledHooks,
}

/// The durability of an acknowledged event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// Survives a power failure: each group commit is flushed to the disk, on macOS with `PRAGMA fullfsync`.
    #[default]
    Full,
    /// Survives a crash of the program; a power failure may lose the latest commits.
    Normal,
    /// Survives a crash of the program; a power failure may damage the database.
    Off,
}

impl Synchronous {
    pub(crate) const fn pragma_value(self) -> &'static str {
        match self {
            // The same as FULL with a write-ahead log. Without one, FULL deletes the rollback journal, but
            // does not flush the directory: after a power failure the journal may be there again, and undo a
            // reported commit.
            Self::Full => "EXTRA",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

impl SqliteOptions {
    /// Creates the settings of `database`: a path, `:memory:`, or a `file:` URI.
    ///
    /// A missing file is created, unless [`create_table`](Self::create_table) is off; then only for a URI
    /// with `mode=rwc`.
    pub fn new(database: impl AsRef<Path>) -> Self {
        Self {
            database: database.as_ref().to_owned(),
            lock_timeout: Duration::from_secs(5),
            create_table: true,
            synchronous: Synchronous::default(),
            readers: const { NonZeroUsize::new(2).unwrap() },
            group: Limits { rows: 4_096, bytes: 4 << 20 },
            queue_bytes: const { NonZeroU32::new(64 << 20).unwrap() },
            event_bytes: None,
            database_bytes: None,
            poll_interval: Duration::from_millis(50),
            inline_commits: true,
            hooks: InstalledHooks::default(),
        }
    }

    /// Sets the time to wait for another connection's lock before an operation fails with a transient error;
    /// 5 seconds by default, as in the Python library. At most 24 days: a longer time is shortened to that.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout.min(MAX_LOCK_TIMEOUT);
        self
    }

    /// Sets whether missing tables are created when a recorder is made; true by default. If not, an operation
    /// on a missing table fails with an error that names it.
    #[must_use]
    pub fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// Sets the durability of acknowledged events; [`Synchronous::Full`] by default, because the first
    /// promise is that none is lost.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets the number of reader threads, each with a connection of its own; 2 by default. A database in
    /// memory has one connection and no such threads.
    #[must_use]
    pub fn readers(mut self, threads: NonZeroUsize) -> Self {
        self.readers = threads;
        self
    }

    /// Sets the maximum number of events in one group commit; 4,096 by default, some tens of milliseconds of
    /// inserting. A larger request is a group of its own.
    #[must_use]
    pub fn group_rows(mut self, rows: NonZeroUsize) -> Self {
        self.group.rows = rows.get();
        self
    }

    /// Sets the maximum bytes of events in one group commit; 4 MiB by default, some tens of milliseconds of
    /// writing. A larger request is a group of its own.
    ///
    /// The write-ahead log grows with each group, until SQLite finds a moment without reads. Beyond 64 MiB
    /// the writer thread makes such a moment, if the current reads end within a quarter of a second.
    #[must_use]
    pub fn group_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.group.bytes = bytes.get();
        self
    }

    /// Sets the maximum bytes of events that are queued or being written; 64 MiB by default. Further callers
    /// wait. Each request counts 128 bytes, and each event 128 bytes plus its topic and state, so that
    /// their number is limited too.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Sets the maximum bytes of an event as a row; SQLite's maximum of 1,000,000,000 by default. A larger
    /// event is refused with an error that names it. A larger event that is recorded already cannot be read:
    /// the error then names neither its originator nor its version.
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.event_bytes = Some(bytes);
        self
    }

    /// Sets the maximum size of the database, to whole pages; unlimited by default. Beyond it, recording
    /// fails as on a full disk.
    #[must_use]
    pub fn max_database_bytes(mut self, bytes: NonZeroU64) -> Self {
        self.database_bytes = Some(bytes);
        self
    }

    /// Sets the interval of the poll for commits of other processes and other connections; 50 ms by default.
    /// Subscriptions and [waits](es_core::TrackingRecorderExt::wait) are notified after half of it on
    /// average. Commits of the datastore's own recorders notify them immediately.
    ///
    /// The writer thread polls only while there are listeners. At the default, that costs less than 0.2 % of
    /// a core, and 0.6 % at 10 ms. Values are clamped to the range from 1 ms to 365 days.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL);
        self
    }

    /// Sets whether small requests are committed on the caller's own thread, while commits are short and
    /// there is no contention; true by default. Handing a request to the writer thread would take about as
    /// long as such a commit.
    ///
    /// An inline commit has at most 64 events of 64 KiB together, and recent commits took less than half a
    /// millisecond on average. On a slower disk, the writer thread makes all commits; one slow flush among
    /// many quick ones blocks the caller. A task that writes alone yields once in half a millisecond, or with
    /// each commit that takes longer. Switch it off if tasks share their thread with work that must not be
    /// delayed for that long.
    #[must_use]
    pub fn inline_commits(mut self, enabled: bool) -> Self {
        self.inline_commits = enabled;
        self
    }

    /// Calls `hooks` before each step of a write, for tests of faults.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn hooks(mut self, hooks: impl crate::FaultHooks) -> Self {
        self.hooks = InstalledHooks::new(hooks);
        self
    }

    /// Returns true if the connections of this process may share a cache, whose locks SQLite cannot try
    /// without waiting.
    pub(crate) fn may_share_cache(&self) -> bool {
        self.database.to_str().is_none_or(|name| name.starts_with("file:") && name.contains("cache="))
    }

    /// Returns true if a missing file is created. SQLite refuses a URI that requests it without permission.
    pub(crate) fn may_create(&self) -> bool {
        let has_mode_rwc = |name: &str| name.starts_with("file:") && name.contains("mode=rwc");
        self.create_table || self.database.to_str().is_some_and(has_mode_rwc)
    }
}

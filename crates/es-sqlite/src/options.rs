//! How a database is opened.

use std::{
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use es_core::PersistenceError;

use crate::{
    SqliteDatastore,
    fault_hooks::{FaultHooks, InstalledHooks},
    limits::Bounds,
};

/// SQLite counts milliseconds in 32 bits.
const LONGEST_LOCK_TIMEOUT: Duration = Duration::from_hours(24 * 24);

/// Shorter, the writer would do little else.
const SHORTEST_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// An [`Instant`](std::time::Instant) cannot be arbitrarily far in the future.
const LONGEST_POLL_INTERVAL: Duration = Duration::from_hours(365 * 24);

/// How a database is opened; every setting has a default that suits most programs.
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
    /// What one group commit takes at most; a larger request is a group of its own.
    pub(crate) group: Bounds,
    pub(crate) queue_bytes: NonZeroU32,
    pub(crate) event_bytes: Option<NonZeroU32>,
    pub(crate) database_bytes: Option<NonZeroU64>,
    pub(crate) poll_interval: Duration,
    pub(crate) inline_commits: bool,
    pub(crate) hooks: InstalledHooks,
}

/// When an acknowledged event is safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// It survives a loss of power: each group commit is flushed to the disk, on macOS with
    /// `PRAGMA fullfsync`.
    #[default]
    Full,
    /// It survives a crash of the program; a loss of power may take the latest commits back.
    Normal,
    /// It survives a crash of the program; a loss of power may damage the database.
    Off,
}

impl Synchronous {
    pub(crate) const fn pragma_value(self) -> &'static str {
        match self {
            // As FULL with a write-ahead log. Without one, FULL leaves it to the disk when a commit that was reported
            // stays: the journal that would take it back is deleted, but the directory is not flushed.
            Self::Full => "EXTRA",
            Self::Normal => "NORMAL",
            Self::Off => "OFF",
        }
    }
}

impl SqliteOptions {
    /// Opens `database`: a path, `:memory:`, or a `file:` URI.
    ///
    /// A file that does not exist is created, unless [`create_table`](Self::create_table) is off; then
    /// only for a URI with `mode=rwc`.
    pub fn new(database: impl AsRef<Path>) -> Self {
        Self {
            database: database.as_ref().to_owned(),
            lock_timeout: Duration::from_secs(5),
            create_table: true,
            synchronous: Synchronous::default(),
            readers: const { NonZeroUsize::new(2).unwrap() },
            group: Bounds { rows: 4_096, bytes: 4 << 20 },
            queue_bytes: const { NonZeroU32::new(64 << 20).unwrap() },
            event_bytes: None,
            database_bytes: None,
            poll_interval: Duration::from_millis(50),
            inline_commits: true,
            hooks: InstalledHooks::default(),
        }
    }

    /// How long to wait for another connection's lock before an operation fails with a transient
    /// error; 5 seconds by default, as in the Python library. At most 24 days: more counts as that.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout.min(LONGEST_LOCK_TIMEOUT);
        self
    }

    /// Whether missing tables are created when a recorder is made; yes by default. Without, an
    /// operation on a missing table fails with an error that names it.
    #[must_use]
    pub fn create_table(mut self, create: bool) -> Self {
        self.create_table = create;
        self
    }

    /// When an acknowledged event is safe; [`Synchronous::Full`] by default, because the first
    /// promise is that it is never lost.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How many threads read, each with a connection of its own; 2 by default. A database in memory
    /// has one connection and no such threads.
    #[must_use]
    pub fn readers(mut self, threads: NonZeroUsize) -> Self {
        self.readers = threads;
        self
    }

    /// How many events one group commit takes at most; 4,096 by default, some tens of milliseconds
    /// of inserting. A request that has more is a group of its own.
    #[must_use]
    pub fn group_rows(mut self, rows: NonZeroUsize) -> Self {
        self.group.rows = rows.get();
        self
    }

    /// How many bytes of events one group commit takes at most; 4 MiB by default, some tens of
    /// milliseconds of writing. A request that has more is a group of its own.
    ///
    /// The write-ahead log grows with each group, until SQLite finds a moment at which nobody reads.
    /// Beyond 64 MiB the writer makes such a moment, if the reads at the time end within a quarter of a
    /// second.
    #[must_use]
    pub fn group_bytes(mut self, bytes: NonZeroUsize) -> Self {
        self.group.bytes = bytes.get();
        self
    }

    /// How many bytes of events may wait for the writer or be on their way; 64 MiB by default.
    /// Callers wait beyond that. Each request counts 128 bytes, and each event as many beside its topic
    /// and state, so that this bounds their number too.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// How many bytes an event may take as a row; by default what SQLite can hold, 1,000,000,000.
    /// A larger one is refused with an error that names it. One that is recorded already cannot be
    /// read: the error then tells neither its originator nor its version.
    #[must_use]
    pub fn max_event_bytes(mut self, bytes: NonZeroU32) -> Self {
        self.event_bytes = Some(bytes);
        self
    }

    /// How large the database may grow, to whole pages; no bound by default. Beyond, recording
    /// fails as on a full disk.
    #[must_use]
    pub fn max_database_bytes(mut self, bytes: NonZeroU64) -> Self {
        self.database_bytes = Some(bytes);
        self
    }

    /// How often the writer looks for what other processes, and other connections of this one, have
    /// committed, while somebody waits for it; 50 ms by default. Subscriptions, and those who
    /// [wait](es_core::TrackingRecorderExt::wait), are told after half of it on average. What the
    /// datastore's own recorders record is told at once.
    ///
    /// At the default, a writer without other work takes less than 0.2 % of a core to look, and 0.6 %
    /// at 10 ms; nothing while nobody waits. Values are clamped to the range from 1 ms to 365 days.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(SHORTEST_POLL_INTERVAL, LONGEST_POLL_INTERVAL);
        self
    }

    /// Whether a caller's own thread commits what is small, while commits are short and nobody is in the
    /// way; yes by default. The way to the writer thread and back would take about as long as such a
    /// commit itself.
    ///
    /// Short means less than half a millisecond, of late, for at most 64 events of 64 KiB together. On
    /// a disk that takes longer, all is left to the writer thread; one slow flush among many quick ones is waited
    /// for. A task that writes alone gives way to others about as often, or with each commit that takes longer. Switch it off where
    /// tasks share their thread with work that may not be held up for that long.
    #[must_use]
    pub fn inline_commits(mut self, at_once: bool) -> Self {
        self.inline_commits = at_once;
        self
    }

    /// Tells `hooks` each step of the writer: for tests of faults.
    #[must_use]
    pub fn hooks(mut self, hooks: impl FaultHooks) -> Self {
        self.hooks = InstalledHooks::new(hooks);
        self
    }

    /// Whether the connections of this process share a cache, whose locks SQLite has no way to ask for
    /// without waiting.
    pub(crate) fn may_share_cache(&self) -> bool {
        self.database.to_str().is_none_or(|name| name.starts_with("file:") && name.contains("cache="))
    }

    /// Whether a file that does not exist is created. SQLite refuses a URI that asks for it where it
    /// may not be.
    pub(crate) fn may_create(&self) -> bool {
        let asks_for_it = |name: &str| name.starts_with("file:") && name.contains("mode=rwc");
        self.create_table || self.database.to_str().is_some_and(asks_for_it)
    }

    /// Opens the database and starts its threads.
    ///
    /// A file is switched to SQLite's write-ahead log, in which readers and the writer do not wait
    /// for each other. One that cannot be written is opened for reading; then recording fails.
    ///
    /// Reading needs the log's two files, which the first to open the database makes, and the last to close
    /// it removes. Where they are not there and cannot be made, as on a read-only file system, open
    /// `file:events.db?immutable=1`: but only a file that nobody writes meanwhile.
    ///
    /// # Errors
    /// [`Database`](es_core::ErrorKind::Database) when the file is not a database;
    /// [`Operational`](es_core::ErrorKind::Operational) when it cannot be opened, or is locked
    /// beyond the timeout.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn open(self) -> Result<SqliteDatastore, PersistenceError> {
        SqliteDatastore::open(self).await
    }
}

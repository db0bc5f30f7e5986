//! Opens a database: its connections and their settings.

use std::time::Duration;

use es_core::PersistenceError;
use rusqlite::{Connection, OpenFlags, limits::Limit, vtab::array};

use super::busy::retry_while_busy;
use crate::{
    error::{from_opening, is_busy, is_read_only},
    options::{SqliteOptions, Synchronous},
};

/// More than the recorders of one datastore use: at most thirteen statements for each table.
const STATEMENT_CACHE_CAPACITY: usize = 128;

/// The number of pages that a transaction changes before SQLite writes some of them into the log, to write
/// them again later; 16 MiB with the usual pages of 4 KiB, more than a group.
///
/// The cache size itself stays at SQLite's default of 2 MiB. The caches of a process share one limit, and a
/// full cache reuses the pages of others. A larger one never fills up: it allocates each page from the
/// operating system, which costs one page fault for each event of 2 KiB.
const CACHE_SPILL_PAGES: i64 = 4_096;

/// The connections of an open database.
pub(crate) struct Connections {
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
    /// For inline reads; `None` if the writer's is the only connection.
    pub(crate) inline: Option<Connection>,
    /// True if a transaction of the writer, once begun, waits for no other connection.
    pub(crate) is_contention_free: bool,
}

impl Connections {
    pub(crate) fn open(options: &SqliteOptions) -> Result<Self, PersistenceError> {
        if options.database.as_os_str().is_empty() {
            return Err(PersistenceError::programming("a database needs a name: a path, or \":memory:\""));
        }
        Self::open_named(options).map_err(|error| from_opening(&options.database, error))
    }

    fn open_named(options: &SqliteOptions) -> rusqlite::Result<Self> {
        let writer = connect(options)?;
        writer.pragma_update(None, "cache_spill", CACHE_SPILL_PAGES)?;
        // A database in memory belongs to the connection that made it.
        if writer.path().is_none_or(str::is_empty) {
            let is_contention_free = !options.may_share_cache();
            return Ok(Self { writer, readers: Vec::new(), inline: None, is_contention_free });
        }
        let has_log = !writer.is_readonly("main")? && use_write_ahead_log(&writer, options.lock_timeout)?;
        let readers =
            (0..options.readers.get()).map(|_| connect_reader(options)).collect::<Result<_, _>>()?;
        let inline = connect_reader(options)?;
        inline.busy_timeout(Duration::ZERO)?;
        let is_contention_free = has_log && !options.may_share_cache();
        Ok(Self { writer, readers, inline: Some(inline), is_contention_free })
    }
}

fn connect(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let mut flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, options.may_create());
    let connection = Connection::open_with_flags(&options.database, flags)?;
    connection.busy_timeout(options.lock_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    connection.pragma_update(None, "synchronous", options.synchronous.pragma_value())?;
    if cfg!(target_os = "macos") && options.synchronous == Synchronous::Full {
        // On macOS, fsync leaves data in the cache of the disk, which a power failure loses.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    }
    array::load_module(&connection)?;
    if let Some(bytes) = options.event_bytes {
        let bytes = i32::try_from(bytes.get()).unwrap_or(i32::MAX);
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, bytes)?;
    }
    if let Some(bytes) = options.database_bytes {
        let page_size: u32 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes.get() / u64::from(page_size.max(1))).unwrap_or(i64::MAX);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    Ok(connection)
}

fn connect_reader(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let connection = connect(options)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Switches to the write-ahead log, in which readers and the writer do not block each other. The database
/// keeps the setting. Returns false if the switch is impossible, for example where the directory of a
/// writable file is read-only.
fn use_write_ahead_log(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<bool> {
    let switched = retry_while_busy(lock_timeout, is_busy, || {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
    });
    if let Err(error) = &switched
        && is_read_only(error)
    {
        tracing::warn!(%error, "the database can be read, but not written");
        return Ok(false);
    }
    let mode: String = switched?;
    if mode != "wal" {
        tracing::warn!(mode, "the database has no write-ahead log: readers and the writer block each other");
    }
    Ok(mode == "wal")
}

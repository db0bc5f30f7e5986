//! Opening a database: the connections and their settings.

use std::time::Duration;

use es_core::PersistenceError;
use rusqlite::{Connection, OpenFlags, limits::Limit, vtab::array};

use crate::{
    SqliteOptions, Synchronous,
    connection::busy::wait_for_lock,
    error::{from_opening, is_locked, is_read_only},
};

/// More than the statements of the recorders that a program makes of one datastore: at most thirteen
/// for each table.
const STATEMENTS_KEPT: usize = 128;

/// How many pages a transaction changes before SQLite writes some of them into the log, to write them
/// again later; 16 MiB with the usual pages of 4 KiB, more than a group.
///
/// The cache itself keeps SQLite's own 2 MiB. The caches of a process share one bound, and one that is
/// full takes the pages of others over, while a larger one, which never fills up, asks the allocator
/// for each page, and gets it from the operating system: one page fault for each event of 2 KiB.
const PAGES_BEFORE_SPILLING: i64 = 4_096;

/// The connections of a database that was opened.
pub(crate) struct Connections {
    pub(crate) writer: Connection,
    pub(crate) readers: Vec<Connection>,
    /// For inline reads; nothing where the writer's is the only connection.
    pub(crate) inline: Option<Connection>,
    /// Whether a transaction of the writer, once begun, waits for no other connection.
    pub(crate) is_undisturbed: bool,
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
        writer.pragma_update(None, "cache_spill", PAGES_BEFORE_SPILLING)?;
        // A database in memory belongs to the connection that made it.
        if writer.path().is_none_or(str::is_empty) {
            let is_undisturbed = !options.may_share_cache();
            return Ok(Self { writer, readers: Vec::new(), inline: None, is_undisturbed });
        }
        let has_log = !writer.is_readonly("main")? && use_write_ahead_log(&writer, options.lock_timeout)?;
        let readers =
            (0..options.readers.get()).map(|_| connect_reader(options)).collect::<Result<_, _>>()?;
        let inline = connect_reader(options)?;
        inline.busy_timeout(Duration::ZERO)?;
        let is_undisturbed = has_log && !options.may_share_cache();
        Ok(Self { writer, readers, inline: Some(inline), is_undisturbed })
    }
}

fn connect(options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let mut flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, options.may_create());
    let connection = Connection::open_with_flags(&options.database, flags)?;
    connection.busy_timeout(options.lock_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    connection.pragma_update(None, "synchronous", options.synchronous.pragma_value())?;
    if cfg!(target_os = "macos") && options.synchronous == Synchronous::Full {
        // There, fsync leaves data in the cache of the disk, which a loss of power empties.
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

/// Readers and the writer then do not wait for each other. The database keeps the setting. Whether it
/// could be had: not where the file could be written but its directory cannot, for example.
fn use_write_ahead_log(connection: &Connection, lock_timeout: Duration) -> rusqlite::Result<bool> {
    let switched = wait_for_lock(lock_timeout, is_locked, || {
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
    });
    if let Err(error) = &switched
        && is_read_only(error)
    {
        tracing::warn!(%error, "the database can be read, and not be written");
        return Ok(false);
    }
    let mode: String = switched?;
    if mode != "wal" {
        tracing::warn!(
            mode,
            "the database has no write-ahead log: readers and the writer wait for each other"
        );
    }
    Ok(mode == "wal")
}

//! A key store on SQLite.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use es_core::{ErrorKind, PersistenceError};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Params, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::{
    Erasure, KeyRecord, KeyReplacement, KeyStore, Subject, WrappedKey,
    store::{erasures, keys, record_of_row, unix_microseconds},
};

/// The time to wait for the lock of another process.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Durable against a loss of power also after the journal was deleted (`EXTRA`): a key that is lost makes its
/// values unreadable, and an erasure that is lost brings them back. Deleted bytes are overwritten with zeros.
const SETTINGS: &str = "PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS subject_keys (
    subject TEXT NOT NULL PRIMARY KEY,
    wrapped_key BLOB,
    erased_at INTEGER, -- microseconds since 1970-01-01 00:00:00 UTC
    erased_by TEXT,
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (erased_by IS NULL))
) STRICT, WITHOUT ROWID";

const SELECT: &str = "SELECT subject, wrapped_key, erased_at, erased_by FROM subject_keys WHERE subject = ?1";

const INSERT: &str =
    "INSERT INTO subject_keys (subject, wrapped_key) VALUES (?1, ?2) ON CONFLICT (subject) DO NOTHING";

const ERASE: &str = "INSERT INTO subject_keys (subject, erased_at, erased_by) VALUES (?1, ?2, ?3)
    ON CONFLICT (subject) DO UPDATE
    SET wrapped_key = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by
    WHERE erased_at IS NULL";

const SELECT_KEYS: &str = "SELECT subject, wrapped_key, erased_at, erased_by FROM subject_keys
    WHERE wrapped_key IS NOT NULL AND (?1 IS NULL OR subject > ?1) ORDER BY subject LIMIT ?2";

const REPLACE: &str = "UPDATE subject_keys SET wrapped_key = ?3 WHERE subject = ?1 AND wrapped_key = ?2";

const SELECT_ERASURES: &str = "SELECT subject, wrapped_key, erased_at, erased_by FROM subject_keys
    WHERE erased_at IS NOT NULL AND (?1 IS NULL OR subject > ?1) ORDER BY subject LIMIT ?2";

/// A key store in the table `subject_keys` of an SQLite database of its own, which several processes can use.
///
/// The database has a rollback journal and no write-ahead log, so that after an erasure no copy of the
/// wrapped key remains in another file. The bytes in the file are overwritten with zeros;
/// [`vacuum`](Self::vacuum) also removes copies in the unused parts of pages.
///
/// If the file is moved, deleted or replaced, such as by one from a backup, every call fails until the store
/// is opened again.
///
/// A handle: its clones share one connection, which is used on a thread of its own.
#[derive(Clone)]
pub struct SqliteKeyStore {
    path: Arc<PathBuf>,
    jobs: mpsc::Sender<Job>,
}

type Job = Box<dyn FnOnce(&mut OpenFile) + Send>;

impl SqliteKeyStore {
    /// Opens a database, and creates the file and the table if they are missing.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the database has a write-ahead log, as that of
    /// events has; any error of SQLite.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, PersistenceError> {
        Self::open_with(path.as_ref(), true).await
    }

    /// Opens a database that has the table, and creates nothing: for tools, which would otherwise take a
    /// mistyped path for a store without keys.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Operational`](es_core::ErrorKind::Operational) if the file is missing, and
    /// [`Programming`](es_core::ErrorKind::Programming) if the table is.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<Self, PersistenceError> {
        Self::open_with(path.as_ref(), false).await
    }

    async fn open_with(path: &Path, creates: bool) -> Result<Self, PersistenceError> {
        let path = Arc::new(path.to_owned());
        let (jobs, received) = mpsc::channel::<Job>();
        let (reply, opened) = oneshot::channel();
        let file = Arc::clone(&path);
        let work = move || {
            let mut file = match open(&file, creates) {
                Ok(connection) => OpenFile::new(connection),
                Err(error) => return drop(reply.send(Err(error))),
            };
            let _ = reply.send(Ok(()));
            for job in received {
                job(&mut file);
            }
        };
        thread::Builder::new().name("es-key-store".to_owned()).spawn(work).map_err(|error| {
            PersistenceError::operational("the thread of a key store cannot be started").with_source(error)
        })?;
        opened.await.unwrap_or_else(|_| Err(ended())).map_err(|error| name(&path, error))?;
        Ok(Self { path, jobs })
    }

    /// Rewrites the database, so that no bytes of deleted keys remain in unused parts of its pages. The time
    /// grows with the size of the database, which is locked meanwhile.
    ///
    /// # Errors
    /// Any error of SQLite.
    ///
    /// # Cancel safety
    /// A dropped future does not stop it.
    pub async fn vacuum(&self) -> Result<(), PersistenceError> {
        self.run(|connection| connection.execute_batch("VACUUM").map_err(from_sqlite)).await
    }

    async fn select_page(
        &self,
        statement: &'static str,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<KeyRecord>, PersistenceError> {
        self.run(move |connection| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            select(connection, statement, params![after.as_ref().map(Subject::as_str), limit])
        })
        .await
    }

    /// Runs a job on the connection's thread.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let (reply, result) = oneshot::channel();
        let job: Job = Box::new(move |file| drop(reply.send(file.connection().and_then(job))));
        let result = match self.jobs.send(job) {
            Ok(()) => result.await.unwrap_or_else(|_| Err(ended())),
            Err(_) => Err(ended()),
        };
        result.map_err(|error| name(&self.path, error))
    }
}

impl KeyStore for SqliteKeyStore {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        let subjects = subjects.to_vec();
        self.run(move |connection| {
            let transaction = connection.transaction().map_err(from_sqlite)?;
            let mut records = Vec::with_capacity(subjects.len());
            for subject in subjects {
                records.append(&mut select(&transaction, SELECT, [subject.as_str()])?);
            }
            Ok(records)
        })
        .await
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
            for WrappedKey { subject, key } in &keys {
                let mut insert = transaction.prepare_cached(INSERT).map_err(from_sqlite)?;
                insert.execute(params![subject.as_str(), &key[..]]).map_err(from_sqlite)?;
            }
            transaction.commit().map_err(from_sqlite)
        })
        .await
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
            let subject = erasure.subject.as_str();
            let parameters = params![subject, unix_microseconds(&erasure), erasure.erased_by];
            transaction.execute(ERASE, parameters).map_err(from_sqlite)?;
            let recorded = erasures(select(&transaction, SELECT, [subject])?).pop();
            transaction.commit().map_err(from_sqlite)?;
            recorded.ok_or_else(|| PersistenceError::internal("an erasure was not recorded"))
        })
        .await
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        Ok(keys(self.select_page(SELECT_KEYS, after, limit).await?))
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        self.run(move |connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sqlite)?;
            let mut replaced = 0;
            for KeyReplacement { current, replacement } in &replacements {
                let mut replace = transaction.prepare_cached(REPLACE).map_err(from_sqlite)?;
                let parameters = params![current.subject.as_str(), &current.key[..], &replacement.key[..]];
                replaced += replace.execute(parameters).map_err(from_sqlite)?;
            }
            transaction.commit().map_err(from_sqlite)?;
            Ok(replaced)
        })
        .await
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        Ok(erasures(self.select_page(SELECT_ERASURES, after, limit).await?))
    }
}

/// A connection, and the file that it has open.
struct OpenFile {
    connection: Connection,
    /// The device and the inode number; none for a database in memory.
    id: Option<(u64, u64)>,
}

impl OpenFile {
    fn new(connection: Connection) -> Self {
        Self { id: file_id(&connection), connection }
    }

    /// Returns the connection. SQLite would go on with a file that was deleted or replaced: it has the keys
    /// of subjects that are erased in the new one, and new keys would be lost with it.
    ///
    /// # Errors
    /// [`Operational`](ErrorKind::Operational) if the file is another one.
    fn connection(&mut self) -> Result<&mut Connection, PersistenceError> {
        if file_id(&self.connection) != self.id {
            return Err(PersistenceError::operational(
                "the file was moved, deleted or replaced while it was open: open the store again",
            ));
        }
        Ok(&mut self.connection)
    }
}

#[cfg(unix)]
fn file_id(connection: &Connection) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;

    let file = std::fs::metadata(connection.path()?).ok()?;
    Some((file.dev(), file.ino()))
}

/// On other systems an open file can be neither deleted nor replaced.
#[cfg(not(unix))]
fn file_id(_: &Connection) -> Option<(u64, u64)> {
    None
}

fn open(path: &Path, creates: bool) -> Result<Connection, PersistenceError> {
    let mut flags = OpenFlags::default();
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, creates);
    let connection = Connection::open_with_flags(path, flags).map_err(from_sqlite)?;
    connection.busy_timeout(LOCK_TIMEOUT).map_err(from_sqlite)?;
    let mode = connection.query_row("PRAGMA journal_mode", (), |row| row.get::<_, String>(0));
    if mode.map_err(from_sqlite)? == "wal" {
        return Err(PersistenceError::programming(
            "the database has a write-ahead log, in which erased keys would remain: keys need a database of \
             their own",
        ));
    }
    connection.execute_batch(SETTINGS).map_err(from_sqlite)?;
    let select = "SELECT 1 FROM sqlite_schema WHERE name = 'subject_keys'";
    let exists = connection.query_row(select, (), |_| Ok(())).optional().map_err(from_sqlite)?;
    if exists.is_none() {
        if !creates {
            return Err(PersistenceError::programming("it has no table of keys"));
        }
        connection.execute_batch(CREATE).map_err(from_sqlite)?;
    }
    Ok(connection)
}

fn select(
    connection: &Connection,
    statement: &str,
    parameters: impl Params,
) -> Result<Vec<KeyRecord>, PersistenceError> {
    let mut select = connection.prepare_cached(statement).map_err(from_sqlite)?;
    let mut rows = select.query(parameters).map_err(from_sqlite)?;
    let mut records = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let columns = || Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let (subject, key, erased_at, erased_by) = columns().map_err(from_sqlite)?;
        records.push(record_of_row(subject, key, erased_at, erased_by)?);
    }
    Ok(records)
}

fn from_sqlite(error: rusqlite::Error) -> PersistenceError {
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let locked = PersistenceError::operational("it is locked by another connection");
            return locked.transient().with_source(error);
        }
        Some(
            ErrorCode::CannotOpen | ErrorCode::DiskFull | ErrorCode::ReadOnly | ErrorCode::SystemIoFailure,
        ) => (ErrorKind::Operational, "it cannot be read or written"),
        _ => (ErrorKind::Database, "SQLite reported an error"),
    };
    PersistenceError::new(kind, message).with_source(error)
}

/// The error if the thread of the connection has ended, because SQLite panicked for example.
fn ended() -> PersistenceError {
    PersistenceError::internal("the thread of the key store has ended")
}

fn name(path: &Path, error: PersistenceError) -> PersistenceError {
    error.with_context(format_args!("key store {path:?}"))
}

impl fmt::Debug for SqliteKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteKeyStore").field("path", &self.path).finish_non_exhaustive()
    }
}

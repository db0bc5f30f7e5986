//! A key store on PostgreSQL.

use std::fmt;

use es_core::{ErrorKind, PersistenceError};
use sqlx::{
    PgPool, Postgres, Row, Transaction,
    postgres::{PgArguments, PgRow},
};

use crate::{
    Erasure, KeyRecord, KeyReplacement, KeyStore, Subject, WrappedKey,
    store::{erasures, keys, record_of_row, unix_microseconds},
};

const EXISTS: &str = "SELECT to_regclass('subject_keys') IS NOT NULL";

/// Two processes that create the table at the same time would otherwise violate an index of the catalogue.
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtext('subject_keys'))";

const CREATE: &str = r#"CREATE TABLE IF NOT EXISTS subject_keys (
    subject text COLLATE "C" PRIMARY KEY,
    wrapped_key bytea,
    erased_at timestamptz,
    erased_by text,
    CHECK ((wrapped_key IS NULL) = (erased_at IS NOT NULL) AND (erased_at IS NULL) = (erased_by IS NULL))
)"#;

const SELECT: &str =
    "SELECT subject, wrapped_key, (extract(epoch FROM erased_at) * 1000000)::bigint, erased_by
    FROM subject_keys WHERE subject = ANY ($1)";

const INSERT: &str =
    "INSERT INTO subject_keys (subject, wrapped_key) SELECT * FROM unnest($1::text[], $2::bytea[])
    ON CONFLICT (subject) DO NOTHING";

const ERASE: &str = "INSERT INTO subject_keys (subject, erased_at, erased_by)
    VALUES ($1, timestamptz 'epoch' + $2 * interval '1 microsecond', $3)
    ON CONFLICT (subject) DO UPDATE
    SET wrapped_key = NULL, erased_at = excluded.erased_at, erased_by = excluded.erased_by
    WHERE subject_keys.erased_at IS NULL";

const SELECT_KEYS: &str =
    "SELECT subject, wrapped_key, (extract(epoch FROM erased_at) * 1000000)::bigint, erased_by
    FROM subject_keys WHERE wrapped_key IS NOT NULL AND ($1::text IS NULL OR subject > $1) ORDER BY subject LIMIT $2";

const LOCK_ROWS: &str =
    "SELECT 1 FROM subject_keys WHERE subject = ANY ($1::text[]) ORDER BY subject FOR UPDATE";

const REPLACE: &str = "UPDATE subject_keys SET wrapped_key = given.replacement
    FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS given (subject, current, replacement)
    WHERE subject_keys.subject = given.subject AND subject_keys.wrapped_key = given.current";

const SELECT_ERASURES: &str =
    "SELECT subject, wrapped_key, (extract(epoch FROM erased_at) * 1000000)::bigint, erased_by
    FROM subject_keys WHERE erased_at IS NOT NULL AND ($1::text IS NULL OR subject > $1) ORDER BY subject LIMIT $2";

/// A key store in the table `subject_keys` of a PostgreSQL database, which several processes can use.
///
/// Take another database than that of the events, so that their backups have no keys. An erasure leaves the
/// wrapped key in a dead row until the table is rewritten (`VACUUM FULL subject_keys`), and in the
/// write-ahead log until it is recycled and its archive is deleted.
///
/// It works behind a pooler in transaction mode, such as pgbouncer.
///
/// A handle: its clones share the pool.
#[derive(Clone)]
pub struct PostgresKeyStore {
    pool: PgPool,
}

impl PostgresKeyStore {
    /// A store in the first schema of the search path of the pool's connections. Creates the table if it is
    /// missing.
    ///
    /// # Errors
    /// Any error of PostgreSQL.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open(pool: PgPool) -> Result<Self, PersistenceError> {
        Self::open_with(pool, true).await
    }

    /// A store whose table exists, which is not created: for tools, which would otherwise take another
    /// database for a store without keys.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the table is missing; any error of PostgreSQL.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn open_existing(pool: PgPool) -> Result<Self, PersistenceError> {
        Self::open_with(pool, false).await
    }

    async fn open_with(pool: PgPool, creates: bool) -> Result<Self, PersistenceError> {
        let store = Self { pool };
        let mut transaction = store.begin().await?;
        let exists = query(EXISTS).fetch_one(&mut *transaction).await.map_err(from_sqlx)?;
        let exists: bool = exists.try_get(0).map_err(from_sqlx)?;
        if !exists {
            if !creates {
                return Err(PersistenceError::programming("key store: the database has no table of keys"));
            }
            query(LOCK).execute(&mut *transaction).await.map_err(from_sqlx)?;
            query(CREATE).execute(&mut *transaction).await.map_err(from_sqlx)?;
        }
        transaction.commit().await.map_err(from_sqlx)?;
        Ok(store)
    }

    /// Begins a transaction, also around one statement: behind a pooler in transaction mode, the messages of
    /// a statement could otherwise arrive in two sessions.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, PersistenceError> {
        self.pool.begin().await.map_err(from_sqlx)
    }

    /// Selects records in a transaction of their own.
    async fn records(&self, select: Query<'_>) -> Result<Vec<KeyRecord>, PersistenceError> {
        let mut transaction = self.begin().await?;
        let rows = select.fetch_all(&mut *transaction).await.map_err(from_sqlx)?;
        transaction.commit().await.map_err(from_sqlx)?;
        rows.iter().map(record).collect()
    }

    async fn page(
        &self,
        statement: &'static str,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<KeyRecord>, PersistenceError> {
        let after = after.as_ref().map(Subject::as_str);
        self.records(query(statement).bind(after).bind(i64::try_from(limit).unwrap_or(i64::MAX))).await
    }
}

impl KeyStore for PostgresKeyStore {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        let subjects: Vec<&str> = subjects.iter().map(Subject::as_str).collect();
        self.records(query(SELECT).bind(subjects)).await
    }

    async fn insert(&self, mut keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        // In one order in all processes: two of them wait for each other's rows without a deadlock.
        keys.sort_unstable_by(|one, other| one.subject.cmp(&other.subject));
        let (subjects, keys): (Vec<&str>, Vec<&[u8]>) =
            keys.iter().map(|key| (key.subject.as_str(), &key.key[..])).unzip();
        let mut transaction = self.begin().await?;
        let insert = query(INSERT).bind(subjects).bind(keys);
        insert.execute(&mut *transaction).await.map_err(from_sqlx)?;
        transaction.commit().await.map_err(from_sqlx)
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        let subject = erasure.subject.as_str();
        let mut transaction = self.begin().await?;
        let erase = query(ERASE).bind(subject).bind(unix_microseconds(&erasure)).bind(&erasure.erased_by);
        erase.execute(&mut *transaction).await.map_err(from_sqlx)?;
        let select = query(SELECT).bind([subject]);
        let recorded = record(&select.fetch_one(&mut *transaction).await.map_err(from_sqlx)?)?;
        transaction.commit().await.map_err(from_sqlx)?;
        match recorded {
            KeyRecord::Erased(erasure) => Ok(erasure),
            KeyRecord::Key(_) => Err(PersistenceError::internal("an erasure was not recorded")),
        }
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        Ok(keys(self.page(SELECT_KEYS, after, limit).await?))
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        let subjects: Vec<&str> = replacements.iter().map(|one| one.current.subject.as_str()).collect();
        let current: Vec<&[u8]> = replacements.iter().map(|one| &one.current.key[..]).collect();
        let replacement: Vec<&[u8]> = replacements.iter().map(|one| &one.replacement.key[..]).collect();
        let mut transaction = self.begin().await?;
        // In one order in all processes, as above.
        let lock = query(LOCK_ROWS).bind(&subjects);
        lock.execute(&mut *transaction).await.map_err(from_sqlx)?;
        let replace = query(REPLACE).bind(&subjects).bind(current).bind(replacement);
        let replaced = replace.execute(&mut *transaction).await.map_err(from_sqlx)?;
        transaction.commit().await.map_err(from_sqlx)?;
        Ok(usize::try_from(replaced.rows_affected()).unwrap_or(usize::MAX))
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        Ok(erasures(self.page(SELECT_ERASURES, after, limit).await?))
    }
}

type Query<'a> = sqlx::query::Query<'a, Postgres, PgArguments>;

/// A statement that is not prepared for later: the next transaction may have another session.
fn query<'a>(statement: &'static str) -> Query<'a> {
    sqlx::query(statement).persistent(false)
}

fn record(row: &PgRow) -> Result<KeyRecord, PersistenceError> {
    let columns = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    let (subject, key, erased_at, erased_by) = columns().map_err(from_sqlx)?;
    record_of_row(subject, key, erased_at, erased_by)
}

/// Converts an error. Of the server's, code and message remain: its detail may show a row.
fn from_sqlx(error: sqlx::Error) -> PersistenceError {
    if let sqlx::Error::Database(error) = &error {
        let code = error.code().unwrap_or_default();
        let class = code.get(..2).unwrap_or_default();
        // Of a server that has become a standby, and of a transaction that was idle for too long.
        let is_unavailable = matches!(&*code, "25006" | "25P03" | "25P04");
        let kind = match class {
            "08" | "28" | "40" | "53" | "55" | "57" | "58" => ErrorKind::Operational,
            "25" if is_unavailable => ErrorKind::Operational,
            "3D" | "3F" | "42" => ErrorKind::Programming,
            _ => ErrorKind::Database,
        };
        let message = format!("key store: PostgreSQL reported {code}: {}", error.message());
        let converted = PersistenceError::new(kind, message);
        // As of the recorders. A full disk remains full until an operator has made room.
        let is_transient = is_unavailable
            || matches!(class, "08" | "40")
            || matches!(&*code, "53300" | "55P03" | "57014")
            || code.starts_with("57P");
        return if is_transient { converted.transient() } else { converted };
    }
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => {
            let unavailable = PersistenceError::operational("key store: the connection to PostgreSQL failed");
            unavailable.transient().with_source(error)
        }
        sqlx::Error::PoolClosed => PersistenceError::interface("key store: its pool is closed"),
        error => PersistenceError::new(ErrorKind::Database, "key store: PostgreSQL cannot be used")
            .with_source(error),
    }
}

impl fmt::Debug for PostgresKeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresKeyStore").finish_non_exhaustive()
    }
}

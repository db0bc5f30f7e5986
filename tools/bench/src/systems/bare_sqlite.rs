//! Bare rusqlite, as a careful programmer would write it: statements prepared once and cached, write-ahead
//! log, `synchronous=FULL`, one commit per append, rows decoded into owned values.

use std::{
    hint::black_box,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context, Result, anyhow};
use es_core::StoredEvent;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::OwnedEvent;
use crate::workload::{Page, Store};

const CREATE: &str = "CREATE TABLE IF NOT EXISTS stored_events (originator_id TEXT, originator_version INTEGER, \
     topic TEXT, state BLOB, PRIMARY KEY (originator_id, originator_version))";
const INSERT: &str = "INSERT INTO stored_events VALUES (?, ?, ?, ?)";
const SELECT_EVENTS: &str = "SELECT originator_id, originator_version, topic, state FROM stored_events \
     WHERE originator_id = ? ORDER BY originator_version";
const SELECT_LAST: &str = "SELECT originator_version FROM stored_events WHERE originator_id = ? \
     ORDER BY originator_version DESC LIMIT 1";
const SELECT_NOTIFICATIONS: &str = "SELECT originator_id, originator_version, topic, state, rowid FROM stored_events \
     WHERE rowid > ? ORDER BY rowid LIMIT ?";
/// The limit of a group, which bounds the wait of its first request.
const GROUP: usize = 1_000;

/// A connection and its operations.
pub(crate) struct Database(Connection);

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.execute(CREATE, [])?;
        Ok(Self(connection))
    }

    /// The settings that decide the cost of a commit.
    pub(crate) fn durability(&self) -> Result<String> {
        let connection = &self.0;
        let journal: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
        let checkpoint: i64 = connection.pragma_query_value(None, "wal_autocheckpoint", |row| row.get(0))?;
        let synchronous =
            ["OFF", "NORMAL", "FULL", "EXTRA"].get(usize::try_from(synchronous)?).unwrap_or(&"?");
        let version = rusqlite::version();
        Ok(format!(
            "SQLite {version}, journal_mode={journal}, synchronous={synchronous}, wal_autocheckpoint={checkpoint}"
        ))
    }

    /// Stores events fast and without durability, and writes everything to the database file.
    pub(crate) fn fill(&mut self, events: impl Iterator<Item = StoredEvent>) -> Result<()> {
        // Large enough for the whole index of ten million events, whose keys are in no order.
        self.0.execute_batch(
            "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -1500000",
        )?;
        let transaction = self.0.transaction()?;
        insert(&transaction, events)?;
        transaction.commit()?;
        self.0.execute_batch(
            "ANALYZE; PRAGMA synchronous = full; PRAGMA journal_mode = wal; PRAGMA cache_size = -2000",
        )?;
        Ok(())
    }

    fn append(&mut self, events: Vec<StoredEvent>) -> Result<Vec<i64>> {
        // One statement is a transaction by itself.
        if events.len() == 1 {
            return insert(&self.0, events.into_iter());
        }
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ids = insert(&transaction, events.into_iter())?;
        transaction.commit()?;
        Ok(ids)
    }

    fn append_if_new(&mut self, event: StoredEvent) -> Result<bool> {
        match insert(&self.0, std::iter::once(event)) {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn last_version(&self, originator_id: Uuid) -> Result<i64> {
        let mut select = self.0.prepare_cached(SELECT_LAST)?;
        let id = hexadecimal(originator_id, &mut Uuid::encode_buffer()).to_owned();
        Ok(select.query_row([id], |row| row.get(0)).optional()?.unwrap_or(0))
    }

    fn load(&self, originator_id: Uuid) -> Result<usize> {
        let mut select = self.0.prepare_cached(SELECT_EVENTS)?;
        let id = hexadecimal(originator_id, &mut Uuid::encode_buffer()).to_owned();
        let rows = select.query_and_then([id], decode)?;
        Ok(black_box(rows.collect::<Result<Vec<_>>>()?).len())
    }

    fn page(&self, after: i64, limit: usize) -> Result<Page> {
        let mut select = self.0.prepare_cached(SELECT_NOTIFICATIONS)?;
        let rows = select.query_and_then([after, i64::try_from(limit)?], |row| {
            Ok::<_, anyhow::Error>((row.get::<_, i64>(4)?, decode(row)?))
        })?;
        let notifications = black_box(rows.collect::<Result<Vec<_>>>()?);
        Ok(Page { count: notifications.len(), last: notifications.last().map_or(0, |(id, _)| *id) })
    }
}

fn insert(connection: &Connection, events: impl Iterator<Item = StoredEvent>) -> Result<Vec<i64>> {
    let mut insert = connection.prepare_cached(INSERT)?;
    let mut ids = Vec::with_capacity(events.size_hint().0);
    let mut buffer = Uuid::encode_buffer();
    for event in events {
        let id = hexadecimal(event.originator_id, &mut buffer);
        ids.push(insert.insert((id, event.originator_version, event.topic.as_str(), &*event.state))?);
    }
    Ok(ids)
}

fn is_conflict(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
    code == Some(rusqlite::ErrorCode::ConstraintViolation)
}

fn decode(row: &Row<'_>) -> Result<OwnedEvent> {
    Ok(OwnedEvent {
        originator_id: Uuid::try_parse(row.get_ref(0)?.as_str()?)?,
        originator_version: row.get(1)?,
        topic: row.get(2)?,
        state: row.get(3)?,
    })
}

fn hexadecimal(id: Uuid, buffer: &mut [u8]) -> &str {
    id.simple().encode_lower(buffer)
}

/// Calls of an asynchronous program with a bare driver.
pub(crate) struct Driver {
    database: Arc<Mutex<Database>>,
    is_blocking: bool,
}

impl Driver {
    /// Calls on the caller's thread: right for a synchronous program, and the least cost of a call. In an
    /// asynchronous program it blocks every other task of its thread.
    pub(crate) fn direct(path: &Path) -> Result<Self> {
        Ok(Self { database: Arc::new(Mutex::new(Database::open(path)?)), is_blocking: false })
    }

    /// Calls on the runtime's threads for blocking work, as asynchronous programs should.
    pub(crate) fn blocking(path: &Path) -> Result<Self> {
        Ok(Self { is_blocking: true, ..Self::direct(path)? })
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.is_blocking {
            return locked(&self.database, work);
        }
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || locked(&database, work)).await?
    }
}

impl Store for Driver {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        black_box(self.call(move |database| database.append(events)).await?);
        Ok(())
    }

    async fn append_if_new(&self, event: StoredEvent) -> Result<bool> {
        self.call(move |database| database.append_if_new(event)).await
    }

    async fn last_version(&self, originator_id: Uuid) -> Result<i64> {
        self.call(move |database| database.last_version(originator_id)).await
    }

    async fn load(&self, originator_id: Uuid) -> Result<usize> {
        self.call(move |database| database.load(originator_id)).await
    }

    async fn page(&self, after: i64, limit: usize) -> Result<Page> {
        self.call(move |database| database.page(after, limit)).await
    }
}

fn locked<T>(database: &Mutex<Database>, work: impl FnOnce(&mut Database) -> Result<T>) -> Result<T> {
    work(&mut database.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A thread that owns the connection and commits all waiting requests, or none of them: the least cost of a
/// group commit. Callers receive no results of their own.
pub(crate) struct GroupCommit {
    requests: mpsc::Sender<Request>,
}

struct Request {
    events: Vec<StoredEvent>,
    done: oneshot::Sender<Vec<i64>>,
}

impl GroupCommit {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let database = Database::open(path)?;
        let (requests, waiting) = mpsc::channel();
        thread::spawn(move || commit_groups(database, &waiting));
        Ok(Self { requests })
    }
}

/// Ends with the first error, which makes the waiting requests fail.
fn commit_groups(mut database: Database, waiting: &mpsc::Receiver<Request>) -> Result<()> {
    while let Ok(first) = waiting.recv() {
        let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter().take(GROUP - 1)).collect();
        let transaction = database.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut done = Vec::with_capacity(group.len());
        for request in group {
            done.push((request.done, insert(&transaction, request.events.into_iter())?));
        }
        transaction.commit()?;
        for (done, ids) in done {
            // A caller that no longer waits needs no result.
            let _ = done.send(ids);
        }
    }
    Ok(())
}

impl Store for GroupCommit {
    async fn append(&self, events: Vec<StoredEvent>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.requests.send(Request { events, done }).map_err(|_| anyhow!("the writer has failed"))?;
        black_box(answer.await.context("the writer has failed")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Driver, GroupCommit};
    use crate::{
        data::Supply,
        workload::{
            do_work,
            tests::{APPEND, PAGE, writes_and_reads},
        },
    };

    #[tokio::test]
    async fn each_way_of_calling_writes_and_reads() {
        let directory = tempfile::tempdir().unwrap();
        writes_and_reads(Driver::direct(&directory.path().join("direct.db")).unwrap()).await;
        writes_and_reads(Driver::blocking(&directory.path().join("blocking.db")).unwrap()).await;
    }

    #[tokio::test]
    async fn the_group_commit_stores_every_request() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("group.db");
        let group = Arc::new(GroupCommit::open(&path).unwrap());
        do_work(&group, &APPEND, &Supply::default()).await.unwrap();
        let reader = Arc::new(Driver::direct(&path).unwrap());
        do_work(&reader, &PAGE, &Supply::default()).await.unwrap();
    }
}

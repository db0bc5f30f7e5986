//! The writing connection: its transactions, and the outcome of a failed commit.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use es_core::{ErrorKind, PersistenceError};
use rusqlite::{Connection, DropBehavior, Transaction, TransactionBehavior};

use super::{
    append,
    request::{Batch, Outcome},
};
use crate::{
    connection::{Session, retry_while_busy},
    error::{from_sqlite, is_busy, is_definitely_rolled_back, is_full},
    fault_hooks::{FaultPoint, InstalledHooks},
    schema::EventTable,
};

/// The writing connection. Tests can make each step of its transactions fail.
pub(crate) struct WriteConnection {
    pub(crate) session: Session,
    pub(super) lock_timeout: Duration,
    hooks: InstalledHooks,
    /// The highest notification id that this connection has committed to each table.
    max_ids: RefCell<HashMap<String, i64>>,
}

/// The error of a transaction.
pub(crate) enum CommitError {
    /// Nothing was recorded, but single requests may succeed: the disk was too full for all of them, or one
    /// of them made SQLite roll back the transaction.
    RetryIndividually(PersistenceError),
    /// Nothing was recorded, or the outcome is unknown.
    Failed(PersistenceError),
}

impl WriteConnection {
    pub(crate) fn new(session: Session, lock_timeout: Duration, hooks: InstalledHooks) -> Self {
        Self { session, lock_timeout, hooks, max_ids: RefCell::default() }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.session.connection
    }

    /// Calls the hooks before a step.
    pub(crate) fn before(&self, step: FaultPoint) -> rusqlite::Result<()> {
        self.hooks.before(step)
    }

    /// Begins a write transaction. It remains open until [`commit`](Self::commit) or
    /// [`roll_back`](Self::roll_back).
    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        self.begin_by(|| append::execute(self.connection(), "BEGIN IMMEDIATE"))
    }

    /// Begins a write transaction for a projection; dropping it does nothing.
    pub(crate) fn begin_projection(&self) -> rusqlite::Result<Transaction<'_>> {
        let mut transaction =
            self.begin_by(|| Transaction::new_unchecked(self.connection(), TransactionBehavior::Immediate))?;
        transaction.set_drop_behavior(DropBehavior::Ignore);
        Ok(transaction)
    }

    /// Begins a write transaction, or fails if another connection holds the lock.
    pub(crate) fn begin_without_waiting(&self) -> rusqlite::Result<()> {
        self.before(FaultPoint::Begin)?;
        self.roll_back()?;
        self.connection().busy_timeout(Duration::ZERO)?;
        let begun = append::execute(self.connection(), "BEGIN IMMEDIATE");
        self.connection().busy_timeout(self.lock_timeout)?;
        begun
    }

    /// Appends a batch, all or nothing, and returns the notification ids.
    ///
    /// The only request of a transaction needs no savepoint, on a connection that waits for no locks within
    /// one. If it fails, the transaction must be rolled back. For a savepoint, SQLite would copy each page
    /// that it changes; beyond 64 KiB into a temporary file.
    pub(crate) fn append(&self, batch: Batch<'_>, needs_savepoint: bool) -> Outcome {
        self.before(FaultPoint::Append).map_err(from_sqlite)?;
        let max_id = self.max_ids.borrow().get(&batch.table.name).copied().unwrap_or(i64::MIN);
        if !needs_savepoint {
            return append::append_without_savepoint(self.connection(), batch, max_id);
        }
        retry_while_busy(self.lock_timeout, PersistenceError::is_transient, || {
            append::append(self.connection(), batch, max_id)
        })
    }

    /// Records a committed notification id: it is not used again, even if another program deletes the row.
    pub(crate) fn record_max_id(&self, table: &EventTable, id: i64) {
        let mut max_ids = self.max_ids.borrow_mut();
        match max_ids.get_mut(&table.name) {
            Some(max_id) => *max_id = id.max(*max_id),
            None => _ = max_ids.insert(table.name.clone(), id),
        }
    }

    /// Commits the open transaction.
    ///
    /// If that seems to fail, `is_committed` determines whether exactly the written rows are in the database;
    /// `None` if that is unknown.
    pub(crate) fn commit(
        &self,
        is_committed: impl FnOnce(&Connection) -> rusqlite::Result<Option<bool>>,
    ) -> Result<(), CommitError> {
        let Err(error) = self.try_commit() else { return self.confirm_file() };
        tracing::warn!(%error, "a commit failed; looking for its rows");
        let found = self.roll_back().and_then(|()| is_committed(self.connection()));
        match found {
            Ok(Some(true)) => self.confirm_file(),
            Ok(Some(false)) if is_full(&error) => Err(CommitError::RetryIndividually(from_sqlite(error))),
            Ok(Some(false)) if is_definitely_rolled_back(&error) || self.overwrite_log().is_ok() => {
                Err(CommitError::Failed(from_sqlite(error)))
            }
            _ => {
                // The open transaction may be the one that overwrites the log, which blocks other
                // connections.
                let _ = self.roll_back();
                Err(CommitError::Failed(outcome_unknown(error)))
            }
        }
    }

    /// Rolls back the open transaction, if any.
    pub(crate) fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection().is_autocommit() {
            Ok(())
        } else {
            append::execute(self.connection(), "ROLLBACK")
        }
    }

    /// Verifies that the commit went into the file that other connections will open.
    fn confirm_file(&self) -> Result<(), CommitError> {
        self.session
            .file_identity
            .verify_unchanged()
            .map_err(|error| CommitError::Failed(outcome_unknown(error)))
    }

    fn begin_by<T>(&self, begin: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.before(FaultPoint::Begin)?;
        self.roll_back()?;
        retry_while_busy(self.lock_timeout, is_busy, begin)
    }

    fn try_commit(&self) -> rusqlite::Result<()> {
        self.session.file_identity.verify_unchanged()?;
        self.before(FaultPoint::Commit)?;
        append::execute(self.connection(), "COMMIT")?;
        self.before(FaultPoint::Report)
    }

    /// Commits a transaction without effect over the rest of a failed commit in the log.
    ///
    /// Otherwise the records of that commit, if they reached the disk after all, would be recovered after a
    /// crash, and events would appear that were reported as not recorded.
    fn overwrite_log(&self) -> rusqlite::Result<()> {
        append::execute(self.connection(), "BEGIN IMMEDIATE")?;
        let version: i64 = self.connection().pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.connection().pragma_update(None, "user_version", version)?;
        self.before(FaultPoint::Overwrite)?;
        append::execute(self.connection(), "COMMIT")
    }
}

impl From<CommitError> for PersistenceError {
    fn from(error: CommitError) -> Self {
        let (CommitError::RetryIndividually(error) | CommitError::Failed(error)) = error;
        error
    }
}

fn outcome_unknown(error: rusqlite::Error) -> PersistenceError {
    let message = "the commit failed, and it is unknown whether it took effect";
    PersistenceError::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}

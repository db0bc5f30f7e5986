//! The connection that writes: its transactions, and what became of a commit that failed.

use std::{cell::Cell, time::Duration};

use es_core::{ErrorKind, PersistenceError, StoredEvent, Tracking};
use rusqlite::{Connection, DropBehavior, Transaction, TransactionBehavior};

use crate::{
    connection::busy::wait_for_lock,
    error::{from_sqlite, is_full, is_locked, leaves_nothing},
    fault_hooks::{FaultPoint, InstalledHooks},
    read::select::Session,
    schema::tables::EventTable,
    write::append,
};

/// The writer's connection. Each step of its transactions can be made to fail, for tests.
pub(crate) struct WritingConnection {
    pub(crate) session: Session,
    lock_timeout: Duration,
    hooks: InstalledHooks,
    /// The highest notification id that this connection has committed.
    highest: Cell<i64>,
}

/// Why a transaction was not committed.
pub(crate) enum CommitError {
    /// Nothing was recorded: there was no room for it. Less may still fit.
    NoRoom(PersistenceError),
    /// Nothing was recorded, or that is unknown.
    Failed(PersistenceError),
}

impl WritingConnection {
    pub(crate) fn new(session: Session, lock_timeout: Duration, hooks: InstalledHooks) -> Self {
        Self { session, lock_timeout, hooks, highest: Cell::new(i64::MIN) }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.session.connection
    }

    /// Tells of a step that is about to be done.
    pub(crate) fn before(&self, step: FaultPoint) -> rusqlite::Result<()> {
        self.hooks.before(step)
    }

    /// Begins a transaction, which no other connection then can. It stays open until it is
    /// [committed](Self::commit) or [rolled back](Self::roll_back).
    pub(crate) fn begin(&self) -> rusqlite::Result<()> {
        self.begin_by(|| self.execute("BEGIN IMMEDIATE"))
    }

    /// The same, to be handed to a projection; dropping it does nothing.
    pub(crate) fn begin_projection(&self) -> rusqlite::Result<Transaction<'_>> {
        let mut transaction =
            self.begin_by(|| Transaction::new_unchecked(self.connection(), TransactionBehavior::Immediate))?;
        transaction.set_drop_behavior(DropBehavior::Ignore);
        Ok(transaction)
    }

    /// Begins a transaction unless another connection is in the way.
    pub(crate) fn begin_at_once(&self) -> rusqlite::Result<()> {
        self.before(FaultPoint::Begin)?;
        self.roll_back()?;
        self.connection().busy_timeout(Duration::ZERO)?;
        let begun = self.execute("BEGIN IMMEDIATE");
        self.connection().busy_timeout(self.lock_timeout)?;
        begun
    }

    /// Appends events and a tracking record, all or nothing, and returns the notification ids.
    pub(crate) fn append(
        &self,
        table: &EventTable,
        events: &[StoredEvent],
        tracking: Option<&Tracking>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.before(FaultPoint::Append).map_err(from_sqlite)?;
        wait_for_lock(self.lock_timeout, PersistenceError::is_transient, || {
            append::append(self.connection(), table, events, tracking, self.highest.get())
        })
    }

    /// Appends what is alone in its transaction, where nothing within one waits for locks. When that fails, the
    /// transaction must be rolled back.
    ///
    /// It takes no savepoint, for which SQLite would copy each page that it changes; beyond 64 KiB into a temporary file.
    pub(crate) fn append_unguarded(
        &self,
        table: &EventTable,
        events: &[StoredEvent],
        tracking: Option<&Tracking>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.before(FaultPoint::Append).map_err(from_sqlite)?;
        append::append_unguarded(self.connection(), table, events, tracking, self.highest.get())
    }

    /// Remembers a notification id that was committed: it is not used again, even if another program
    /// deletes the row. Only the one table of an application's events has such ids.
    pub(crate) fn remember(&self, id: i64) {
        self.highest.set(self.highest.get().max(id));
    }

    /// Commits the transaction that is open.
    ///
    /// When that seems to fail, `is_committed` looks whether exactly what was written stands in the
    /// database, and says nothing when it cannot tell.
    pub(crate) fn commit(
        &self,
        is_committed: impl FnOnce(&Connection) -> rusqlite::Result<Option<bool>>,
    ) -> Result<(), CommitError> {
        let Err(error) = self.try_commit() else { return self.confirm_place() };
        tracing::warn!(%error, "a commit failed; looking for what it wrote");
        let found = self.roll_back().and_then(|()| is_committed(self.connection()));
        match found {
            Ok(Some(true)) => self.confirm_place(),
            Ok(Some(false)) if is_full(&error) => Err(CommitError::NoRoom(from_sqlite(error))),
            Ok(Some(false)) if leaves_nothing(&error) || self.overwrite_log().is_ok() => {
                Err(CommitError::Failed(from_sqlite(error)))
            }
            _ => {
                // It may be the transaction that was to overwrite the log, for whose lock others wait.
                let _ = self.roll_back();
                Err(CommitError::Failed(outcome_unknown(error)))
            }
        }
    }

    /// Rolls back the transaction that is open, if one is.
    pub(crate) fn roll_back(&self) -> rusqlite::Result<()> {
        if self.connection().is_autocommit() { Ok(()) } else { self.execute("ROLLBACK") }
    }

    /// Makes sure that what was just committed stands in the file that others will open.
    fn confirm_place(&self) -> Result<(), CommitError> {
        self.session.place.require_unmoved().map_err(|error| CommitError::Failed(outcome_unknown(error)))
    }

    fn begin_by<T>(&self, begin: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        self.before(FaultPoint::Begin)?;
        self.roll_back()?;
        wait_for_lock(self.lock_timeout, is_locked, begin)
    }

    fn try_commit(&self) -> rusqlite::Result<()> {
        self.session.place.require_unmoved()?;
        self.before(FaultPoint::Commit)?;
        self.execute("COMMIT")?;
        self.before(FaultPoint::Report)
    }

    /// Commits a change that changes nothing, over whatever the failed commit left in the log.
    ///
    /// Otherwise its records, if they reached the disk after all, would be recovered after a crash,
    /// and events appear that were reported as not recorded.
    fn overwrite_log(&self) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        let version: i64 = self.connection().pragma_query_value(None, "user_version", |row| row.get(0))?;
        self.connection().pragma_update(None, "user_version", version)?;
        self.before(FaultPoint::Overwrite)?;
        self.execute("COMMIT")
    }

    fn execute(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection().prepare_cached(statement)?.execute(()).map(drop)
    }
}

impl From<CommitError> for PersistenceError {
    fn from(error: CommitError) -> Self {
        let (CommitError::NoRoom(error) | CommitError::Failed(error)) = error;
        error
    }
}

fn outcome_unknown(error: rusqlite::Error) -> PersistenceError {
    let message = "the commit failed, and it cannot be found out whether it took effect";
    PersistenceError::new(ErrorKind::OutcomeUnknown, message).with_source(error)
}

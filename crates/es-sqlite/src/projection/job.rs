//! A projection's work for the writer thread: handlers that run in the transaction which records the
//! position.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use es_core::{
    ConsumerError, ErrorKind, HandlerError, Notification, NotificationBatch, PersistenceError, Tracking,
};
use rusqlite::{Connection, Transaction};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    error::{catch_panic, from_sqlite},
    fault_hooks::FaultPoint,
    follow::data_version,
    lifecycle::PendingWrite,
    schema::{EventTable, tables},
    write::{Batch, Committer, WriteConnection},
};

/// The time after which a transaction takes no more notifications, because other requests wait for the writer
/// thread.
const MAX_TRANSACTION_TIME: Duration = Duration::from_millis(100);

/// Notifications to handle and a position to record as one.
pub(super) struct ProjectionJob {
    pub(super) application_name: String,
    pub(super) notifications: Vec<Notification>,
    pub(super) position: i64,
    pub(super) expected_position: Option<i64>,
    pub(super) handler: Handler,
    /// The table parameter of an append; a projection appends no events.
    pub(super) table: Arc<EventTable>,
    pub(super) reply: oneshot::Sender<Result<usize, ConsumerError>>,
    /// The share of the queue budget, returned when the job is done.
    pub(super) permit: OwnedSemaphorePermit,
    /// Closing the recorder waits for it.
    pub(super) pending: PendingWrite,
}

/// Handles a notification.
pub(super) type Handler = Box<dyn FnMut(&Transaction<'_>, &Notification) -> Result<(), HandlerError> + Send>;

impl ProjectionJob {
    /// Runs the job, unless the caller's future was dropped, and replies.
    pub(super) fn run(mut self, committer: &Committer) {
        if self.reply.is_closed() {
            return;
        }
        let outcome = self.project(&committer.writing);
        // The outcome is final; a fault cannot change it any more.
        let _ = committer.writing.before(FaultPoint::Reply);
        if outcome.is_ok() {
            committer.signals.positions.wake([self.application_name.as_str()]);
        }
        drop(self.permit);
        let _ = self.reply.send(outcome);
        drop(self.pending);
    }

    /// Handles notifications and records the position, all or nothing; returns the number of notifications.
    fn project(&mut self, writing: &WriteConnection) -> Result<usize, ConsumerError> {
        let transaction = writing.begin_projection().map_err(from_sqlite)?;
        let written = self.write(writing, &transaction);
        let (handled, tracking, version) = written.inspect_err(|_| {
            if let Err(error) = writing.roll_back() {
                // The next transaction tries again before it begins.
                tracing::warn!(%error, "a projection cannot be rolled back");
            }
        })?;
        writing
            .commit(|connection| is_committed(connection, &tracking, version))
            .map_err(|error| commit_error(error.into(), handled))?;
        Ok(handled)
    }

    /// Writes everything that the transaction commits. Notifications that were processed already, in whole or
    /// in part, are refused before any handler runs.
    fn write(
        &mut self,
        writing: &WriteConnection,
        transaction: &Transaction<'_>,
    ) -> Result<(usize, Tracking, i64), ConsumerError> {
        let version = data_version(transaction).map_err(from_sqlite)?;
        // Comparing the position to record is not enough: another instance, whose batches differ, may have
        // processed the first notifications of this one and not the last.
        let recorded = tables::max_tracking_id(transaction, &self.application_name).map_err(from_sqlite)?;
        self.batch().tracking(self.notifications.len())?.validate(recorded)?;
        let handled = self.handle(transaction)?;
        let tracking = self.batch().tracking(handled)?;
        let batch = Batch { table: &self.table, events: &[], tracking: Some(&tracking) };
        writing.append(batch, true)?;
        Ok((handled, tracking, version))
    }

    /// Handles the first notifications, as many as the time allows.
    fn handle(&mut self, transaction: &Transaction<'_>) -> Result<usize, ConsumerError> {
        let guard = TransactionGuard::new(transaction).map_err(from_sqlite)?;
        let began = Instant::now();
        for (index, notification) in self.notifications.iter().enumerate() {
            let result = catch_panic(|| (self.handler)(transaction, notification))
                .map_err(HandlerError::from)
                .flatten();
            guard.check(result).map_err(|error| ConsumerError::Handler { index, error })?;
            if began.elapsed() >= MAX_TRANSACTION_TIME {
                return Ok(index + 1);
            }
        }
        Ok(self.notifications.len())
    }

    fn batch(&self) -> NotificationBatch<'_> {
        let Self { application_name, notifications, position, expected_position, .. } = self;
        NotificationBatch {
            application_name,
            notifications,
            position: *position,
            expected_position: *expected_position,
        }
    }
}

/// Converts the error of a commit. SQLite checks deferred constraints only then, and does not say which
/// notification violates them; a processor that then retries with smaller batches finds it.
fn commit_error(error: PersistenceError, handled: usize) -> ConsumerError {
    match handled.checked_sub(1) {
        Some(last) if error.kind() == ErrorKind::Integrity => {
            ConsumerError::Handler { index: last, error: error.into() }
        }
        _ => ConsumerError::Recording(error),
    }
}

/// Determines whether this job has recorded the position, that is, no other connection has committed since
/// the transaction began; `None` if that is unknown.
fn is_committed(
    connection: &Connection,
    tracking: &Tracking,
    version: i64,
) -> rusqlite::Result<Option<bool>> {
    let recorded = tables::max_tracking_id(connection, tracking.application_name())?;
    if recorded < Some(tracking.notification_id()) {
        return Ok(Some(false));
    }
    Ok((data_version(connection)? == version).then_some(true))
}

/// Prevents handlers from ending their transaction: a hook makes SQLite refuse to commit, and another one
/// detects a rollback.
struct TransactionGuard<'c> {
    connection: &'c Connection,
    has_tried_to_commit: Arc<AtomicBool>,
    is_rolled_back: Arc<AtomicBool>,
}

impl<'c> TransactionGuard<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let guard = Self { connection, has_tried_to_commit: Arc::default(), is_rolled_back: Arc::default() };
        let (has_tried, is_rolled_back) =
            (Arc::clone(&guard.has_tried_to_commit), Arc::clone(&guard.is_rolled_back));
        connection.commit_hook(Some(move || {
            has_tried.store(true, Ordering::Relaxed);
            true
        }))?;
        connection.rollback_hook(Some(move || is_rolled_back.store(true, Ordering::Relaxed)))?;
        Ok(guard)
    }

    /// Converts the result of a handler into an error if it ended the transaction.
    fn check(&self, result: Result<(), HandlerError>) -> Result<(), HandlerError> {
        if self.has_tried_to_commit.load(Ordering::Relaxed) {
            let error = PersistenceError::programming(
                "the projection committed the transaction, which it must leave open",
            );
            return Err(match result {
                Ok(()) => error,
                Err(source) => error.with_source(source),
            }
            .into());
        }
        // The handler's own error says more: a full disk, for example, also rolls back.
        result?;
        if self.is_rolled_back.load(Ordering::Relaxed) || self.connection.is_autocommit() {
            let message = "the transaction was rolled back while the projection used it";
            return Err(PersistenceError::programming(message).into());
        }
        Ok(())
    }
}

impl Drop for TransactionGuard<'_> {
    fn drop(&mut self) {
        // Both fail only for connections that rusqlite has not opened, as setting the hooks does.
        let _ = self.connection.commit_hook(None::<fn() -> bool>);
        let _ = self.connection.rollback_hook(None::<fn()>);
    }
}

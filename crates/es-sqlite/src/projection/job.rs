//! What a projector asks of the writer thread: handlers that run in the transaction which records the
//! position.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
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
    error::from_sqlite,
    follow::poller::data_version,
    schema::tables::EventTable,
    write::{append, transaction::WritingConnection},
};

/// After how long a transaction takes no more notifications: others wait for the writer meanwhile.
const LONGEST_HOLD: Duration = Duration::from_millis(100);

/// Notifications to handle and a position to record as one.
pub(crate) struct Projecting {
    pub(crate) application_name: String,
    pub(crate) notifications: Vec<Notification>,
    pub(crate) position: i64,
    pub(crate) expected_position: Option<i64>,
    pub(crate) handler: Handler,
    /// The table that appending asks for; a projection appends no events.
    pub(crate) table: Arc<EventTable>,
    pub(crate) reply: oneshot::Sender<Result<usize, ConsumerError>>,
    /// The place in the queue, given back when it is done.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// What is done with a notification.
pub(crate) type Handler = Box<dyn FnMut(&Transaction<'_>, &Notification) -> Result<(), HandlerError> + Send>;

impl Projecting {
    /// Not when the caller's future was dropped while this waited.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    pub(crate) fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Handles notifications and records the position, or does nothing; returns how many.
    pub(crate) fn run(&mut self, writing: &WritingConnection) -> Result<usize, ConsumerError> {
        let transaction = writing.begin_projection().map_err(from_sqlite)?;
        let written = self.write(writing, &transaction);
        let (handled, tracking, version) = written.inspect_err(|_| {
            if let Err(error) = writing.roll_back() {
                // Beginning the next transaction tries again.
                tracing::warn!(%error, "a projection cannot be rolled back");
            }
        })?;
        writing
            .commit(|connection| is_committed(connection, &tracking, version))
            .map_err(|error| after_commit(error.into(), handled))?;
        Ok(handled)
    }

    /// Tells the caller, who may be gone.
    pub(crate) fn reply(self, outcome: Result<usize, ConsumerError>) {
        drop(self.permit);
        let _ = self.reply.send(outcome);
    }

    /// Writes all that is to be committed.
    fn write(
        &mut self,
        writing: &WritingConnection,
        transaction: &Transaction<'_>,
    ) -> Result<(usize, Tracking, i64), ConsumerError> {
        let version = data_version(transaction).map_err(from_sqlite)?;
        self.require_unprocessed(transaction)?;
        let handled = self.handle(transaction)?;
        let tracking = self.batch().tracking(handled)?;
        writing.append(&self.table, &[], Some(&tracking))?;
        Ok((handled, tracking, version))
    }

    /// Refuses what was processed already, in whole or in part, before any handler runs.
    ///
    /// To compare the position to record would not do: another instance, whose batches are others,
    /// may have processed the first notifications of this one and not the last.
    fn require_unprocessed(&self, transaction: &Transaction<'_>) -> Result<(), PersistenceError> {
        let recorded = append::max_tracking_id(transaction, &self.application_name).map_err(from_sqlite)?;
        self.batch().tracking(self.notifications.len())?.validate(recorded)
    }

    /// Handles the first notifications, as many as there is time for.
    fn handle(&mut self, transaction: &Transaction<'_>) -> Result<usize, ConsumerError> {
        let guard = Guard::on(transaction).map_err(from_sqlite)?;
        let began = Instant::now();
        for (index, notification) in self.notifications.iter().enumerate() {
            let result = unwinding(|| (self.handler)(transaction, notification));
            guard.check(result).map_err(|error| ConsumerError::Handler { index, error })?;
            if began.elapsed() >= LONGEST_HOLD {
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

/// What a commit that failed means. SQLite checks deferred constraints no sooner: it does not say which
/// notification violates them, and a processor that then hands over fewer finds out.
fn after_commit(error: PersistenceError, handled: usize) -> ConsumerError {
    match handled.checked_sub(1) {
        Some(last) if error.kind() == ErrorKind::Integrity => {
            ConsumerError::Handler { index: last, error: error.into() }
        }
        _ => ConsumerError::Recording(error),
    }
}

/// Calls code of the program's, and makes an error of a panic: it must not end the writer thread.
pub(crate) fn unwinding(call: impl FnOnce() -> Result<(), HandlerError>) -> Result<(), HandlerError> {
    // What the program's own state is after that, its code has to know.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

fn panicked(panic: &(dyn Any + Send)) -> HandlerError {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    PersistenceError::programming(format!("the projection panicked: {}", message.unwrap_or("no message")))
        .into()
}

/// Whether a position stands in the database because this writer has recorded it: nobody else has
/// committed since the transaction began. Nothing when that cannot be said.
fn is_committed(
    connection: &Connection,
    tracking: &Tracking,
    version: i64,
) -> rusqlite::Result<Option<bool>> {
    let recorded = append::max_tracking_id(connection, tracking.application_name())?;
    if recorded < Some(tracking.notification_id()) {
        return Ok(Some(false));
    }
    Ok((data_version(connection)? == version).then_some(true))
}

/// Keeps handlers from ending the transaction that they are given: SQLite refuses to commit, and tells
/// of a rollback.
struct Guard<'c> {
    connection: &'c Connection,
    has_tried_to_commit: Arc<AtomicBool>,
    is_rolled_back: Arc<AtomicBool>,
}

impl<'c> Guard<'c> {
    fn on(connection: &'c Connection) -> rusqlite::Result<Self> {
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

    /// What a handler's result comes to.
    fn check(&self, result: Result<(), HandlerError>) -> Result<(), HandlerError> {
        if self.has_tried_to_commit.load(Ordering::Relaxed) {
            let refusal = PersistenceError::programming(
                "the projection committed the transaction that it was given, which it must leave open",
            );
            return Err(match result {
                Ok(()) => refusal,
                Err(error) => refusal.with_source(error),
            }
            .into());
        }
        // An error of the handler's own tells more: that of a full disk rolls back by itself.
        result?;
        if self.is_rolled_back.load(Ordering::Relaxed) || self.connection.is_autocommit() {
            let message = "the transaction was rolled back while the projection used it";
            return Err(PersistenceError::programming(message).into());
        }
        Ok(())
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // They fail for connections that rusqlite has not opened, as setting them does.
        let _ = self.connection.commit_hook(None::<fn() -> bool>);
        let _ = self.connection.rollback_hook(None::<fn()>);
    }
}

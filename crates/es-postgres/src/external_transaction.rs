//! Appends and tracking inside a transaction of the caller's, so that tables of the caller's own change in
//! the same commit.

use es_core::{PersistenceError, StoredEvent, Tracking};
use sqlx::{Postgres, Row, Transaction};

use crate::{
    error, follow,
    recorder::{
        PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder,
        PostgresTrackingRecorder, Store,
    },
    write::{self, Batch, Outcome, Scope},
};

async fn append_in(
    store: &Store,
    transaction: &mut Transaction<'_, Postgres>,
    batch: Batch<'_>,
) -> Result<Vec<i64>, PersistenceError> {
    store.check_open()?;
    write::check_events(batch.events)?;
    if batch.events.is_empty() && batch.tracking.is_none() {
        return Ok(Vec::new());
    }
    require_read_committed(transaction).await?;
    let appender = store.appender.get();
    let appended = appender.append(&mut *transaction, &[batch], Scope::Callers).await;
    store.appender.refresh_if(appended.as_ref().is_err_and(|failed| failed.is_layout_changed)).await;
    let ids = match appended.map_err(|failed| failed.error)?.into_iter().next() {
        Some(Outcome::Recorded(ids)) => ids,
        Some(Outcome::Refused(refusal)) => return Err(refusal),
        Some(Outcome::Locked | Outcome::FirstPosition | Outcome::NotInserted) => {
            let message = "the tracking position was recorded at the same time: roll back and try again";
            return Err(PersistenceError::operational(message).transient());
        }
        None => return Err(PersistenceError::internal("an append of one request has no outcome")),
    };
    if let (true, Some(events)) = (store.database.options.notify, &appender.tables.events)
        && !batch.events.is_empty()
    {
        let sent = follow::send_in(transaction, &events.name).await;
        sent.map_err(|failed| error::from_statement("sending a notification", failed))?;
    }
    Ok(ids)
}

/// Checks the isolation level. A stricter transaction reads from a snapshot that is older than the locks of
/// an append: positions in the layout of one row for each record would be recorded twice.
async fn require_read_committed(transaction: &mut Transaction<'_, Postgres>) -> Result<(), PersistenceError> {
    let failed = |failed| error::from_statement("reading the isolation level", failed);
    let query = "SELECT pg_catalog.current_setting('transaction_isolation')";
    let row = sqlx::raw_sql(query).fetch_one(&mut **transaction).await.map_err(failed)?;
    let isolation: String = row.try_get(0).map_err(failed)?;
    if isolation == "read committed" {
        return Ok(());
    }
    Err(PersistenceError::programming(format!(
        "the transaction is {isolation}: appending and tracking need a READ COMMITTED transaction"
    )))
}

macro_rules! insert_events_in {
    ($($name:ident),+) => {$(
        impl $name {
            /// Records events inside a transaction of the caller's, in the same database.
            ///
            /// With [`Serialized`](crate::NotificationOrdering::Serialized) ordering, this call takes the
            /// lock of an append and keeps it until the transaction ends. Every other writer of the table
            /// waits that long, so call this last, and commit at once. With
            /// [`Parallel`](crate::NotificationOrdering::Parallel) ordering writers do not wait for
            /// each other, and readers wait for the transaction to end. The transaction's own settings apply,
            /// its `lock_timeout` among them.
            ///
            /// The transaction must be `READ COMMITTED`, as it is by default; others are refused.
            ///
            /// # Errors
            /// [`is_conflict`](PersistenceError::is_conflict) if an aggregate already has an event of such a
            /// version: nothing was inserted, and the transaction can continue. After any other error of the
            /// server, it can only be rolled back.
            ///
            /// # Cancel safety
            /// If the future is dropped, roll the transaction back.
            pub async fn insert_events_in(
                &self,
                transaction: &mut Transaction<'_, Postgres>,
                events: &[StoredEvent],
            ) -> Result<Vec<i64>, PersistenceError> {
                append_in(&self.0, transaction, Batch { events, tracking: None }).await
            }
        }
    )+};
}

insert_events_in!(PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder);

impl PostgresTrackingRecorder {
    /// Records a position inside a transaction of the caller's.
    ///
    /// Call this first. Another transaction that records a position of the same application waits until this
    /// one ends, and then gets a conflict before it has done anything else. Tasks that
    /// [wait](es_core::TrackingRecorderExt::wait) for the position are woken at the [poll
    /// interval](crate::PostgresOptions::poll_interval).
    ///
    /// # Errors
    /// As [`insert_tracking`](es_core::TrackingRecorder::insert_tracking). After any error, roll the
    /// transaction back.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn insert_tracking_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        tracking: &Tracking,
    ) -> Result<(), PersistenceError> {
        self.0.check_open()?;
        require_read_committed(transaction).await?;
        let mut ids = vec![tracking.first_notification_id(), tracking.notification_id()];
        ids.dedup();
        match write::record_position(&self.0.appender, transaction, tracking, &ids).await {
            Ok(recorded) => recorded.map(drop),
            Err(failed) => Err(write::not_recorded(&self.0.appender, tracking, failed).await),
        }
    }
}

impl PostgresProcessRecorder {
    /// Records events, if any, and a position inside a transaction of the caller's; see
    /// [`insert_events_in`](Self::insert_events_in).
    ///
    /// # Errors
    /// As [`insert_events_in`](Self::insert_events_in), and a conflict if the position is not greater than
    /// the recorded one.
    ///
    /// # Cancel safety
    /// If the future is dropped, roll the transaction back.
    pub async fn insert_events_with_tracking_in(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        events: &[StoredEvent],
        tracking: &Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        append_in(&self.0, transaction, Batch { events, tracking: Some(tracking) }).await
    }
}

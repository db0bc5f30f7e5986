//! The gap fence: keeps readers from missing events while several writers write at once.
//!
//! Ids are allocated before commits, so a higher id may become visible before a lower one. A page without a
//! gap has nothing missing below it. Where ids are missing, a writer may be about to commit them. That writer
//! took the table's lock, then allocated the id, before the page's last id was allocated, and keeps the lock
//! until its commit is visible. So, in this order, each in a statement of its own:
//!
//! 1. The page is read.
//! 2. The holders of the table's lock *after that* are listed: the horizon.
//! 3. The reader waits until the last of them has ended.
//! 4. The page is read again, up to a mark. Ids that are still missing were rolled back, and will never
//!    appear.
//!
//! The mark is an id that was allocated before the horizon was taken: the last id of a full page. A reader
//! that reads up to a `stop` takes a short page for everything up to it, so there the mark is `stop`, or the
//! highest visible id if that is lower. The mark is an id of the table and not the sequence's value: that
//! needs no privilege on the sequence, and an allocated id that was never used does not mislead it.

use std::time::Duration;

use es_core::{Notification, NotificationSelection, PersistenceError};
use tokio::time::Instant;

use super::select;
use crate::{
    connection::{Backoff, Database, Select, column},
    fault_hooks::FaultPoint,
    schema::{TableName, rows::Topics},
};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Lists the transactions that may be writing. An insert takes `RowExclusiveLock` before it allocates an id;
/// the stronger modes are held by transactions that are about to insert. `ShareUpdateExclusiveLock` and
/// `ShareLock` are held by `VACUUM` and `CREATE INDEX`, for long, and do not allow inserting.
const LOCK_HOLDERS: &str = "SELECT pg_catalog.pg_is_in_recovery(), l.virtualtransaction, l.pid \
    FROM (SELECT) AS always LEFT JOIN pg_catalog.pg_locks AS l ON l.locktype = 'relation' \
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
    AND l.relation = $1::pg_catalog.regclass::oid AND l.granted \
    AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()";

/// A transaction that may be writing to the table. Two are equal if their virtual transaction ids are.
#[derive(Clone, Debug)]
pub(crate) struct LockHolder {
    /// The virtual transaction id: it exists from the start, and `PREPARE TRANSACTION` keeps it.
    transaction: String,
    /// `None` once the transaction is prepared.
    pid: Option<i32>,
}

impl LockHolder {
    /// Returns whether this prepared transaction may have been listed under another virtual id: recovery
    /// after a crash and promotion replace the id of each prepared transaction by `-1/<transaction id>`.
    fn is_renamed(&self) -> bool {
        self.transaction.starts_with("-1/")
    }
}

impl PartialEq for LockHolder {
    fn eq(&self, other: &Self) -> bool {
        self.transaction == other.transaction
    }
}

impl Eq for LockHolder {}

/// Returns the page of a selection, with nothing missing.
pub(crate) async fn read_complete(
    database: &Database,
    events: &TableName,
    selection: &NotificationSelection,
) -> Result<Vec<Notification>, PersistenceError> {
    let page = read(database, events, selection, None).await?;
    let Some(mark) = mark(database, events, selection, &page).await? else { return Ok(page) };
    if is_contiguous(selection, &page, mark) {
        return Ok(page);
    }
    database.reached(FaultPoint::GapFound).await;
    let horizon = lock_holders(database, events).await?;
    database.reached(FaultPoint::HorizonTaken).await;
    wait_for(database, events, horizon).await?;
    database.reached(FaultPoint::HorizonPassed).await;
    read(database, events, selection, Some(mark)).await
}

/// Reads the page of a selection, up to an id.
pub(crate) async fn read(
    database: &Database,
    events: &TableName,
    selection: &NotificationSelection,
    up_to: Option<i64>,
) -> Result<Vec<Notification>, PersistenceError> {
    let query = select::notifications(events, selection, up_to)?;
    let mut topics = Topics::default();
    database.fetch(&query, |row| topics.notification(row)).await
}

/// Returns the highest visible id.
pub(crate) async fn highest_id(
    database: &Database,
    events: &TableName,
) -> Result<Option<i64>, PersistenceError> {
    let ids = database.fetch(&select::max_notification_id(events), |row| column(row, 0)).await?;
    Ok(ids.into_iter().next())
}

/// Returns the id up to which the reader relies on the page; none if it relies on nothing.
async fn mark(
    database: &Database,
    events: &TableName,
    selection: &NotificationSelection,
    page: &[Notification],
) -> Result<Option<i64>, PersistenceError> {
    let last = page.last().map(|notification| notification.id);
    match selection.stop {
        Some(stop) if !selection.is_filled_by(page) && last.is_none_or(|last| last < stop) => {
            Ok(highest_id(database, events).await?.map(|highest| highest.min(stop)))
        }
        _ => Ok(last),
    }
}

/// Returns whether no id is missing between the start of the selection and the mark.
fn is_contiguous(selection: &NotificationSelection, page: &[Notification], mark: i64) -> bool {
    let Some(first) = selection.first_id().map(|first| first.max(1)) else { return true };
    // With a topic filter, the ids of other topics are missing, so gaps cannot be detected.
    first > mark || selection.topics.is_empty() && page.iter().map(|read| read.id).eq(first..=mark)
}

/// Waits until the transactions have ended.
async fn wait_for(
    database: &Database,
    events: &TableName,
    mut pending: Vec<LockHolder>,
) -> Result<(), PersistenceError> {
    if pending.is_empty() {
        return Ok(());
    }
    let options = &database.options;
    let start = Instant::now();
    let mut next_warning = options.stall_warning;
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    database.reached(FaultPoint::WritersPending).await;
    while let Some(holder) = pending.first() {
        let waited = start.elapsed();
        if options.fence_timeout.is_some_and(|timeout| waited >= timeout) {
            return Err(stalled(events, holder, age(database, holder).await, waited));
        }
        if waited >= next_warning {
            next_warning = waited + options.stall_warning;
            let age = age(database, holder).await.unwrap_or(waited);
            tracing::warn!(
                table = events.quoted(),
                pid = holder.pid,
                transaction = holder.transaction,
                age_seconds = age.as_secs_f64(),
                waited_seconds = waited.as_secs_f64(),
                "reading notifications is delayed by an open transaction that writes"
            );
        }
        backoff.wait().await;
        pending = still_pending(&pending, &lock_holders(database, events).await?);
        database.reached(FaultPoint::WritersListed).await;
    }
    Ok(())
}

/// Returns the pending transactions that still hold the table's lock.
pub(crate) fn still_pending(pending: &[LockHolder], now: &[LockHolder]) -> Vec<LockHolder> {
    now.iter().filter(|holder| pending.contains(holder) || holder.is_renamed()).cloned().collect()
}

fn stalled(
    events: &TableName,
    holder: &LockHolder,
    age: Option<Duration>,
    waited: Duration,
) -> PersistenceError {
    let transaction = match holder.pid {
        Some(pid) => format!("the transaction of process {pid}"),
        None => format!("the prepared transaction {}", holder.transaction),
    };
    let age = age.map_or_else(String::new, |age| format!(", open for {:.1} s,", age.as_secs_f64()));
    PersistenceError::operational(format!(
        "reading notifications of {} was delayed for {:.1} s: {transaction}{age} may be about to commit an \
         earlier one",
        events.quoted(),
        waited.as_secs_f64()
    ))
    .transient()
}

/// Lists the transactions that may be writing to the table.
pub(crate) async fn lock_holders(
    database: &Database,
    events: &TableName,
) -> Result<Vec<LockHolder>, PersistenceError> {
    let mut select = Select::new(LOCK_HOLDERS);
    select.argument(events.quoted())?;
    let query = select.into_query("listing the writing transactions");
    let rows = database.fetch(&query, |row| {
        Ok((column::<bool>(row, 0)?, column::<Option<String>>(row, 1)?, column::<Option<i32>>(row, 2)?))
    });
    let mut holders = Vec::new();
    for (is_standby, transaction, pid) in rows.await? {
        if is_standby {
            return Err(PersistenceError::not_supported(
                "with parallel ordering notifications are read from the primary: this server is a standby, which \
                 does not know the writing transactions",
            ));
        }
        let holder = transaction.map(|transaction| LockHolder { transaction, pid });
        holders.extend(holder.filter(|holder| !holders.contains(holder)));
    }
    Ok(holders)
}

/// Returns how long the transaction has been open, if this role may see it.
async fn age(database: &Database, holder: &LockHolder) -> Option<Duration> {
    let mut select = Select::new(
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8 \
         FROM pg_catalog.pg_stat_activity WHERE pid = $1",
    );
    select.argument(holder.pid?).ok()?;
    let query = select.into_query("reading the age of a transaction");
    let ages = database.fetch(&query, |row| column::<Option<f64>>(row, 0)).await.ok()?;
    Duration::try_from_secs_f64(ages.first().copied().flatten()?).ok()
}

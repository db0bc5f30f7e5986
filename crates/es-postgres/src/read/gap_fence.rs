//! What keeps readers from missing events while several writers write at once.
//!
//! Ids are drawn before commits, so that a higher id may become visible before a lower one. A page
//! without a gap has nothing missing below it. Where ids are missing, somebody may be about to
//! commit them: whoever that is, drew the id before the page's last id was drawn, took the table's
//! lock before drawing, and keeps it until the commit is visible. So, in this order, each in a
//! statement of its own:
//!
//! 1. the page is read;
//! 2. those who hold the table's lock *after that* are listed: the horizon;
//! 3. they are waited for, until the last of them has finished;
//! 4. the page is read again, up to a mark. Ids that are still missing were rolled back, and will never
//!    appear.
//!
//! The mark of step 4 is an id that was drawn before the horizon was taken: of a full page its last
//! id. Whoever reads up to a `stop` takes a short page for all that there is up to it, so there the mark
//! is `stop`, or the highest id that is visible by then. An id of the table serves as mark, and not the
//! sequence's value: that takes no right to the sequence, and is not fooled by one never used.

use std::time::Duration;

use es_core::{Notification, NotificationSelection, PersistenceError};
use tokio::time::Instant;

use crate::{
    PostgresDatastore,
    datastore::Query,
    fault_hooks::FaultPoint,
    read::select::{Select, max_notification_id, select_notifications},
    schema::{
        TableName,
        rows::{Topics, column},
    },
};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Who may be writing: an insert holds `RowExclusiveLock`, and takes it before it draws an id. The
/// stronger ones are held by those who are about to. `ShareUpdateExclusiveLock` and `ShareLock` are
/// held by `VACUUM` and `CREATE INDEX`, for long, and do not allow inserting.
const HOLDERS: &str = "SELECT pg_catalog.pg_is_in_recovery(), l.virtualtransaction, l.pid \
    FROM (SELECT) AS always LEFT JOIN pg_catalog.pg_locks AS l ON l.locktype = 'relation' \
    AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
    AND l.relation = $1::pg_catalog.regclass::oid AND l.granted \
    AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') \
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()";

/// A transaction that may be writing to the table. Two are equal if their virtual transaction ids are.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    /// The virtual transaction id: it exists from the start, and `PREPARE TRANSACTION` keeps it.
    transaction: String,
    /// `None` once the transaction is prepared.
    pid: Option<i32>,
}

impl Holder {
    /// Whether this prepared transaction may have been listed under another virtual id: recovery after a
    /// crash and promotion replace the id of each prepared transaction by `-1/<transaction id>`.
    fn is_renamed(&self) -> bool {
        self.transaction.starts_with("-1/")
    }
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        self.transaction == other.transaction
    }
}

impl Eq for Holder {}

/// The page of a selection, with nothing missing.
pub(crate) async fn select(
    datastore: &PostgresDatastore,
    events: &TableName,
    selection: &NotificationSelection,
) -> Result<Vec<Notification>, PersistenceError> {
    let page = read(datastore, events, selection, None).await?;
    let Some(mark) = mark(datastore, events, selection, &page).await? else { return Ok(page) };
    if is_contiguous(selection, &page, mark) {
        return Ok(page);
    }
    let hooks = &datastore.0.options.hooks;
    hooks.reached(FaultPoint::GapFound).await;
    let horizon = holders(datastore, events).await?;
    hooks.reached(FaultPoint::HorizonTaken).await;
    wait_for(datastore, events, horizon).await?;
    hooks.reached(FaultPoint::HorizonPassed).await;
    read(datastore, events, selection, Some(mark)).await
}

/// The id up to which the page's reader relies on it; none where it relies on nothing.
async fn mark(
    datastore: &PostgresDatastore,
    events: &TableName,
    selection: &NotificationSelection,
    page: &[Notification],
) -> Result<Option<i64>, PersistenceError> {
    let last = page.last().map(|notification| notification.id);
    match selection.stop {
        Some(stop) if !selection.is_filled_by(page) && last.is_none_or(|last| last < stop) => {
            Ok(highest(datastore, events).await?.map(|highest| highest.min(stop)))
        }
        _ => Ok(last),
    }
}

/// Whether no id is missing between the cursor and the mark.
fn is_contiguous(selection: &NotificationSelection, page: &[Notification], mark: i64) -> bool {
    let first = match selection.start {
        None => Some(1),
        Some(start) if selection.inclusive_of_start => Some(start.max(1)),
        Some(start) => start.checked_add(1).map(|first| first.max(1)),
    };
    let Some(first) = first else { return true };
    // With a topic filter, ids are missing that have other topics: no telling.
    first > mark || selection.topics.is_empty() && page.iter().map(|read| read.id).eq(first..=mark)
}

async fn wait_for(
    datastore: &PostgresDatastore,
    events: &TableName,
    mut pending: Vec<Holder>,
) -> Result<(), PersistenceError> {
    let options = &datastore.0.options;
    let began = Instant::now();
    let mut warning = options.stall_warning;
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    while let Some(holder) = pending.first() {
        if !told {
            told = true;
            options.hooks.reached(FaultPoint::WritersPending).await;
        }
        let waited = began.elapsed();
        if let Some(timeout) = options.fence_timeout
            && waited >= timeout
        {
            return Err(held_up(events, holder, age(datastore, holder).await, waited));
        }
        if waited >= warning {
            warning = waited + options.stall_warning;
            let age = age(datastore, holder).await.unwrap_or(waited);
            tracing::warn!(
                table = events.quoted(),
                pid = holder.pid,
                transaction = holder.transaction,
                age_seconds = age.as_secs_f64(),
                waited_seconds = waited.as_secs_f64(),
                "reading notifications is held up by a transaction that keeps writing"
            );
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let now = holders(datastore, events).await?;
        pending = still_pending(&pending, &now);
        options.hooks.reached(FaultPoint::WritersListed).await;
    }
    Ok(())
}

/// Those of the pending who still hold the table's lock.
pub(crate) fn still_pending(pending: &[Holder], now: &[Holder]) -> Vec<Holder> {
    now.iter().filter(|holder| pending.contains(holder) || holder.is_renamed()).cloned().collect()
}

fn held_up(events: &TableName, holder: &Holder, age: Option<Duration>, waited: Duration) -> PersistenceError {
    let who = match holder.pid {
        Some(pid) => format!("the transaction of process {pid}"),
        None => format!("the prepared transaction {}", holder.transaction),
    };
    let age = age.map_or_else(String::new, |age| format!(", open for {:.1} s,", age.as_secs_f64()));
    PersistenceError::operational(format!(
        "reading notifications of {} was held up for {:.1} s: {who}{age} may be about to commit an earlier one",
        events.quoted(),
        waited.as_secs_f64()
    ))
    .transient()
}

/// Who may be writing to the table.
pub(crate) async fn holders(
    datastore: &PostgresDatastore,
    events: &TableName,
) -> Result<Vec<Holder>, PersistenceError> {
    let mut select = Select::new(HOLDERS.to_owned());
    select.argument(events.quoted())?;
    let query = select.into_query("listing who is writing");
    let rows = datastore.fetch(&query, |row| {
        Ok((column::<bool>(row, 0)?, column::<Option<String>>(row, 1)?, column::<Option<i32>>(row, 2)?))
    });
    let mut holders = Vec::new();
    for (is_standby, transaction, pid) in rows.await? {
        if is_standby {
            return Err(PersistenceError::not_supported(
                "with parallel ordering notifications are read from the primary: this server is a standby, which \
                 does not know who is writing",
            ));
        }
        let holder = transaction.map(|transaction| Holder { transaction, pid });
        holders.extend(holder.filter(|holder| !holders.contains(holder)));
    }
    Ok(holders)
}

/// How long the transaction has been open, where this role may know.
async fn age(datastore: &PostgresDatastore, holder: &Holder) -> Option<Duration> {
    let pid = holder.pid?;
    let sql = "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::float8 \
               FROM pg_catalog.pg_stat_activity WHERE pid = $1";
    let mut select = Select::new(sql.to_owned());
    select.argument(pid).ok()?;
    let query: Query = select.into_query("asking how long a transaction is open");
    let ages = datastore.fetch(&query, |row| column::<Option<f64>>(row, 0)).await.ok()?;
    Duration::try_from_secs_f64(ages.first().copied().flatten()?).ok()
}

pub(crate) async fn read(
    datastore: &PostgresDatastore,
    events: &TableName,
    selection: &NotificationSelection,
    horizon: Option<i64>,
) -> Result<Vec<Notification>, PersistenceError> {
    let query = select_notifications(events, selection, horizon)?;
    let mut topics = Topics::default();
    datastore.fetch(&query, |row| topics.notification(row)).await
}

/// The highest id that is visible.
pub(crate) async fn highest(
    datastore: &PostgresDatastore,
    events: &TableName,
) -> Result<Option<i64>, PersistenceError> {
    let ids = datastore.fetch(&max_notification_id(events), |row| column(row, 0)).await?;
    Ok(ids.into_iter().next())
}

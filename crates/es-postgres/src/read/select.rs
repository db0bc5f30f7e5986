//! The statements that select events, notifications and positions.

use es_core::{EventRange, NotificationSelection, PersistenceError, Topic};
use uuid::Uuid;

use crate::{
    connection::{Query, Select},
    schema::{
        TableName,
        rows::{EVENT_COLUMNS, STATE},
    },
};

/// Selects the events of an aggregate: [`EVENT_COLUMNS`].
pub(crate) fn events(
    events: &TableName,
    originator_id: Uuid,
    range: EventRange,
) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT {EVENT_COLUMNS} FROM {}", events.quoted()));
    select.condition("originator_id = $", originator_id)?;
    if let Some(gt) = range.gt {
        select.condition("originator_version > $", gt)?;
    }
    if let Some(lte) = range.lte {
        select.condition("originator_version <= $", lte)?;
    }
    select.text.push_str(" ORDER BY originator_version");
    if range.desc {
        select.text.push_str(" DESC");
    }
    if let Some(limit) = range.limit {
        select.limit(limit)?;
    }
    Ok(limit_bytes(select.into_query("selecting events"), range.max_bytes))
}

/// Selects notifications up to an id: [`EVENT_COLUMNS`] and the id.
pub(crate) fn notifications(
    events: &TableName,
    selection: &NotificationSelection,
    up_to: Option<i64>,
) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT {EVENT_COLUMNS}, notification_id FROM {}", events.quoted()));
    select_page(&mut select, selection, up_to)?;
    Ok(limit_bytes(select.into_query("selecting notifications"), selection.max_bytes))
}

/// Selects notifications on a standby, in one snapshot with the highest id and whether the server is a
/// standby: [`EVENT_COLUMNS`], the id, [`HIGHEST_ID`] and [`IS_STANDBY`]. An empty page is one row without an
/// event.
///
/// The snapshot is taken before the functions are called: it is one of replayed data if the server is a
/// standby after it.
pub(crate) fn notifications_on_standby(
    events: &TableName,
    selection: &NotificationSelection,
) -> Result<Query, PersistenceError> {
    let table = events.quoted();
    let mut select = Select::new(format!(
        "SELECT {EVENT_COLUMNS}, page.notification_id, \
         (SELECT notification_id FROM {table} ORDER BY notification_id DESC LIMIT 1), \
         pg_catalog.pg_is_in_recovery() FROM (SELECT) AS always LEFT JOIN \
         (SELECT {EVENT_COLUMNS}, notification_id FROM {table}"
    ));
    select_page(&mut select, selection, None)?;
    select.text.push_str(") AS page ON true ORDER BY page.notification_id");
    Ok(limit_bytes(select.into_query("selecting notifications on a standby"), selection.max_bytes))
}

/// The index of the highest notification id in the rows of [`notifications_on_standby`].
pub(crate) const HIGHEST_ID: usize = 5;

/// The index of whether the server is a standby in the rows of [`notifications_on_standby`].
pub(crate) const IS_STANDBY: usize = 6;

fn select_page(
    select: &mut Select,
    selection: &NotificationSelection,
    up_to: Option<i64>,
) -> Result<(), PersistenceError> {
    select_range(select, selection, up_to)?;
    select.text.push_str(" ORDER BY notification_id");
    select.limit(selection.limit)
}

fn select_range(
    select: &mut Select,
    selection: &NotificationSelection,
    up_to: Option<i64>,
) -> Result<(), PersistenceError> {
    if let Some(start) = selection.start {
        let comparison = if selection.inclusive_of_start { ">=" } else { ">" };
        select.condition(&format!("notification_id {comparison} $"), start)?;
    }
    if let Some(stop) = selection.stop.into_iter().chain(up_to).min() {
        select.condition("notification_id <= $", stop)?;
    }
    if !selection.topics.is_empty() {
        let topics: Vec<&str> = selection.topics.iter().map(Topic::as_str).collect();
        select.condition("topic = ANY($)", topics)?;
    }
    Ok(())
}

/// Selects the last notification of a selection up to an id: id, originator and version.
pub(crate) fn last_notification(
    events: &TableName,
    selection: &NotificationSelection,
    up_to: i64,
) -> Result<Query, PersistenceError> {
    let columns = "notification_id, originator_id, originator_version";
    let mut select = Select::new(format!("SELECT {columns} FROM {}", events.quoted()));
    select_range(&mut select, selection, Some(up_to))?;
    select.text.push_str(" ORDER BY notification_id DESC LIMIT 1");
    Ok(select.into_query("confirming notifications of a standby"))
}

fn limit_bytes(mut query: Query, max_bytes: Option<usize>) -> Query {
    query.byte_limit = max_bytes.map(|max_bytes| (STATE, max_bytes));
    query
}

/// Selects the highest notification id, by the index, without aggregating.
pub(crate) fn max_notification_id(events: &TableName) -> Query {
    let table = events.quoted();
    let select =
        Select::new(format!("SELECT notification_id FROM {table} ORDER BY notification_id DESC LIMIT 1"));
    select.into_query("selecting the highest notification id")
}

/// Counts the notifications of each topic after an id and up to another one.
pub(crate) fn topic_counts(events: &TableName, after: i64, up_to: i64) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT topic, count(*) FROM {}", events.quoted()));
    select.condition("notification_id > $", after)?;
    select.condition("notification_id <= $", up_to)?;
    select.text.push_str(" GROUP BY topic");
    Ok(select.into_query("selecting the topics of new notifications"))
}

/// Selects the position recorded for an application.
pub(crate) fn max_tracking_id(tracking: &TableName, application: &str) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT max(notification_id) FROM {}", tracking.quoted()));
    select.condition("application_name = $", application)?;
    Ok(select.into_query("selecting the tracking position"))
}

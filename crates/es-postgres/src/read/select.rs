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
    select.text.push_str(" ORDER BY notification_id");
    select.limit(selection.limit)?;
    Ok(limit_bytes(select.into_query("selecting notifications"), selection.max_bytes))
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

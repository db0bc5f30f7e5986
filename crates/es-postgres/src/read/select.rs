//! Reading: the statements that select, and how their rows are fetched.

use es_core::{EventRange, NotificationSelection, PersistenceError, Topic};
use futures_util::TryStreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, SqlSafeStr,
    error::BoxDynError,
    postgres::{PgArguments, PgConnection, PgRow},
};
use uuid::Uuid;

use crate::{
    datastore::Query,
    schema::{
        TableName,
        rows::{EVENT_COLUMNS, STATE, column},
    },
};

/// Why rows could not be fetched.
#[derive(Debug)]
pub(crate) enum ReadError {
    Statement(sqlx::Error),
    Row(PersistenceError),
}

impl From<sqlx::Error> for ReadError {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(error)
    }
}

/// What was fetched.
pub(crate) struct Fetched<T> {
    pub(crate) decoded: Vec<T>,
    /// Whether the server has more rows on their way, beyond the bytes that were asked for.
    pub(crate) has_rest: bool,
}

/// Fetches rows, decoding each as it arrives.
pub(crate) async fn fetch<T: Send>(
    connection: &mut PgConnection,
    query: &Query,
    persistent: bool,
    decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
) -> Result<Fetched<T>, ReadError> {
    let statement = sqlx::query_with(query.sql.clone(), query.arguments.clone()).persistent(persistent);
    let mut rows = statement.fetch(connection);
    let (mut decoded, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        if query.max_bytes.is_some_and(|max_bytes| !decoded.is_empty() && bytes >= max_bytes) {
            return Ok(Fetched { decoded, has_rest: true });
        }
        if query.max_bytes.is_some() {
            bytes += column::<Option<&[u8]>>(&row, STATE).map_err(ReadError::Row)?.map_or(0, <[u8]>::len);
        }
        decoded.push(decode(&row).map_err(ReadError::Row)?);
    }
    Ok(Fetched { decoded, has_rest: false })
}

/// The events of an aggregate: [`EVENT_COLUMNS`].
pub(crate) fn select_events(
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
    let query = select.into_query("selecting events");
    Ok(Query { max_bytes: range.max_bytes, ..query })
}

/// Notifications: [`EVENT_COLUMNS`] and the id; `horizon` is an id beyond which not to look.
pub(crate) fn select_notifications(
    events: &TableName,
    selection: &NotificationSelection,
    horizon: Option<i64>,
) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT {EVENT_COLUMNS}, notification_id FROM {}", events.quoted()));
    if let Some(start) = selection.start {
        let condition =
            if selection.inclusive_of_start { "notification_id >= $" } else { "notification_id > $" };
        select.condition(condition, start)?;
    }
    if let Some(stop) = selection.stop.into_iter().chain(horizon).min() {
        select.condition("notification_id <= $", stop)?;
    }
    if !selection.topics.is_empty() {
        let topics: Vec<&str> = selection.topics.iter().map(Topic::as_str).collect();
        select.condition_of("topic = ANY($", ")", topics)?;
    }
    select.text.push_str(" ORDER BY notification_id");
    select.limit(selection.limit)?;
    let query = select.into_query("selecting notifications");
    Ok(Query { max_bytes: selection.max_bytes, ..query })
}

/// The highest notification id.
pub(crate) fn max_notification_id(events: &TableName) -> Query {
    // By the index, without aggregating.
    Select::new(format!(
        "SELECT notification_id FROM {} ORDER BY notification_id DESC LIMIT 1",
        events.quoted()
    ))
    .into_query("selecting the highest notification id")
}

/// How many notifications there are of each topic after an id and up to another one.
pub(crate) fn count_topics(events: &TableName, after: i64, up_to: i64) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT topic, count(*) FROM {}", events.quoted()));
    select.condition("notification_id > $", after)?;
    select.condition("notification_id <= $", up_to)?;
    select.text.push_str(" GROUP BY topic");
    Ok(select.into_query("selecting the topics of new notifications"))
}

/// The position recorded for an application.
pub(crate) fn max_tracking_id(tracking: &TableName, application: &str) -> Result<Query, PersistenceError> {
    let mut select = Select::new(format!("SELECT max(notification_id) FROM {}", tracking.quoted()));
    select.condition("application_name = $", application)?;
    Ok(select.into_query("selecting the tracking position"))
}

/// A statement in the making.
pub(crate) struct Select {
    pub(crate) text: String,
    arguments: PgArguments,
}

impl Select {
    pub(crate) fn new(text: String) -> Self {
        Self { text, arguments: PgArguments::default() }
    }

    /// Adds a condition that ends in the argument's place.
    fn condition<'q, T>(&mut self, condition: &str, value: T) -> Result<(), PersistenceError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.condition_of(condition, "", value)
    }

    fn condition_of<'q, T>(&mut self, before: &str, after: &str, value: T) -> Result<(), PersistenceError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let keyword = if self.arguments.len() == 0 { "WHERE" } else { "AND" };
        let place = self.argument(value)?;
        self.text.push_str(&format!(" {keyword} {before}{place}{after}"));
        Ok(())
    }

    fn limit(&mut self, limit: usize) -> Result<(), PersistenceError> {
        let place = self.argument(i64::try_from(limit).unwrap_or(i64::MAX))?;
        self.text.push_str(&format!(" LIMIT ${place}"));
        Ok(())
    }

    /// Adds an argument; its number.
    pub(crate) fn argument<'q, T>(&mut self, value: T) -> Result<usize, PersistenceError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.arguments.add(value).map_err(unencodable)?;
        Ok(self.arguments.len())
    }

    pub(crate) fn into_query(self, doing: &'static str) -> Query {
        Query {
            doing,
            sql: AssertSqlSafe(self.text).into_sql_str(),
            arguments: self.arguments,
            max_bytes: None,
        }
    }
}

fn unencodable(error: BoxDynError) -> PersistenceError {
    PersistenceError::data("a value cannot be sent to PostgreSQL").with_source(error)
}

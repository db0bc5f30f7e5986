//! Statements that read, and their rows.

use es_core::PersistenceError;
use futures_util::TryStreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Row, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgConnection, PgRow},
};

use super::session::{self, Access};
use crate::{error::DriverError, options::PostgresOptions};

/// A statement that reads, with its arguments.
#[derive(Debug)]
pub(crate) struct Query {
    /// The operation, for error messages.
    pub(crate) operation: &'static str,
    sql: SqlStr,
    arguments: PgArguments,
    /// True if it runs as code of the user's, with the settings of the role.
    pub(crate) is_users: bool,
    /// A number of bytes in a `bytea` column, given by its index, after which no further row is fetched.
    pub(crate) byte_limit: Option<(usize, usize)>,
}

impl Query {
    /// A query of the user's code.
    pub(crate) fn of_user(sql: SqlStr, arguments: PgArguments) -> Self {
        Self { operation: "running a query", sql, arguments, is_users: true, byte_limit: None }
    }
}

/// The reason why rows were not fetched.
#[derive(Debug)]
pub(crate) enum FetchError {
    Statement(sqlx::Error),
    Row(PersistenceError),
}

impl From<sqlx::Error> for FetchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<PersistenceError> for FetchError {
    fn from(error: PersistenceError) -> Self {
        Self::Row(error)
    }
}

/// Fetched rows.
pub(crate) struct Fetched<T> {
    pub(crate) decoded: Vec<T>,
    /// The server is sending more rows, beyond the byte limit.
    pub(crate) has_rest: bool,
}

/// Fetches rows, decoding each as it arrives.
pub(crate) async fn fetch<T: Send>(
    connection: &mut PgConnection,
    query: &Query,
    is_persistent: bool,
    decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
) -> Result<Fetched<T>, FetchError> {
    let statement = sqlx::query_with(query.sql.clone(), query.arguments.clone()).persistent(is_persistent);
    let mut rows = statement.fetch(connection);
    let (mut decoded, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        if let Some((index, limit)) = query.byte_limit {
            if !decoded.is_empty() && bytes >= limit {
                return Ok(Fetched { decoded, has_rest: true });
            }
            bytes += column::<Option<&[u8]>>(&row, index)?.map_or(0, <[u8]>::len);
        }
        decoded.push(decode(&row)?);
    }
    Ok(Fetched { decoded, has_rest: false })
}

/// Fetches rows on a connection, in a transaction where the settings or the pooler need one.
pub(super) async fn fetch_on<T: Send>(
    options: &PostgresOptions,
    connection: &mut PgConnection,
    query: &Query,
    decode: &mut (impl FnMut(&PgRow) -> Result<T, PersistenceError> + Send),
) -> Result<Fetched<T>, FetchError> {
    let is_persistent = !options.transaction_pooler;
    let begin = match query.is_users {
        true => session::begin_for_user(options, Access::ReadOnly),
        false if is_persistent => return fetch(connection, query, true, decode).await,
        false => session::begin(options, Access::ReadOnly),
    };
    session::run(connection, &begin).await?;
    let rows = fetch(connection, query, is_persistent, decode).await?;
    if !rows.has_rest {
        session::run(connection, "COMMIT").await?;
    }
    Ok(rows)
}

/// Returns the value of a column.
pub(crate) fn column<'r, T>(row: &'r PgRow, index: usize) -> Result<T, PersistenceError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|error| {
        PersistenceError::data("a row does not have the columns that the table's layout requires")
            .with_source(DriverError::new(error))
    })
}

/// A builder of a [`Query`].
pub(crate) struct Select {
    pub(crate) text: String,
    arguments: PgArguments,
}

impl Select {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), arguments: PgArguments::default() }
    }

    /// Adds a condition, in which `$` stands for the parameter.
    pub(crate) fn condition<'q, T>(&mut self, condition: &str, value: T) -> Result<(), PersistenceError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let keyword = if self.arguments.len() == 0 { "WHERE" } else { "AND" };
        let number = self.argument(value)?;
        self.text.push_str(&format!(" {keyword} {}", condition.replace('$', &format!("${number}"))));
        Ok(())
    }

    pub(crate) fn limit(&mut self, limit: usize) -> Result<(), PersistenceError> {
        let number = self.argument(i64::try_from(limit).unwrap_or(i64::MAX))?;
        self.text.push_str(&format!(" LIMIT ${number}"));
        Ok(())
    }

    /// Adds an argument; returns its number.
    pub(crate) fn argument<'q, T>(&mut self, value: T) -> Result<usize, PersistenceError>
    where
        T: sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.arguments.add(value).map_err(|error| {
            PersistenceError::data("a value cannot be encoded for PostgreSQL").with_source(error)
        })?;
        Ok(self.arguments.len())
    }

    pub(crate) fn into_query(self, operation: &'static str) -> Query {
        let sql = AssertSqlSafe(self.text).into_sql_str();
        Query { operation, sql, arguments: self.arguments, is_users: false, byte_limit: None }
    }
}

//! Statements on SQLite.

use std::sync::Arc;

use es_core::{HandlerError, Notification};
use es_sqlite::{
    SqliteProjection,
    rusqlite::{
        self, Connection, Row, Transaction,
        types::{ToSqlOutput, Value, ValueRef},
    },
};
use time::{UtcOffset, format_description::StaticFormatDescription, macros::format_description};

use super::{NoRow, error::StatementError};
use crate::{DynSqlProjection, Sql, SqlRow, SqlValue};

/// A format of a fixed width, so that texts sort by time.
const TIMESTAMP: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Runs the statements of a projection.
pub(crate) struct SqliteStatements(pub(crate) Box<dyn DynSqlProjection>);

impl SqliteProjection for SqliteStatements {
    type Error = HandlerError;

    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), HandlerError> {
        execute(transaction, self.0.set_up())
    }

    fn project(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        execute(transaction, self.0.project(notification)?)
    }

    fn park(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        execute(transaction, self.0.park(notification, failure)?)
    }
}

/// Runs statements; an error names the statement.
fn execute(connection: &Connection, statements: Vec<Sql>) -> Result<(), HandlerError> {
    for statement in statements {
        let named = |error: HandlerError| StatementError::new(statement.sqlite_text(), error);
        let mut rows = 0_usize;
        let executed = run(connection, &statement, |_| {
            rows += 1;
            Ok(())
        });
        executed.map_err(|error| named(error.into()))?;
        if rows == 0 && statement.requires_row() {
            return Err(named(NoRow.into()).into());
        }
    }
    Ok(())
}

/// Runs a query.
pub(crate) fn select(connection: &Connection, query: &Sql) -> rusqlite::Result<Vec<SqlRow>> {
    let mut names: Option<Arc<[String]>> = None;
    let mut selected = Vec::new();
    run(connection, query, |row| {
        let new = || row.as_ref().column_names().into_iter().map(str::to_owned).collect();
        let names = names.get_or_insert_with(new);
        let values = (0..names.len()).map(|index| from_sqlite(row.get_ref(index)?));
        selected.push(SqlRow::new(Arc::clone(names), values.collect::<rusqlite::Result<_>>()?));
        Ok(())
    })?;
    Ok(selected)
}

fn run(
    connection: &Connection,
    statement: &Sql,
    mut each: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut prepared = connection.prepare_cached(statement.sqlite_text())?;
    let values = statement.values();
    let mut highest = 0;
    for index in 1..=prepared.parameter_count() {
        // `$2` is a name to SQLite, which counts parameters in the order of the text.
        let number = match prepared.parameter_name(index) {
            Some(name) => name.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0),
            None => index,
        };
        let value = number.checked_sub(1).and_then(|index: usize| values.get(index));
        let value = value.ok_or(rusqlite::Error::InvalidParameterCount(values.len(), number))?;
        prepared.raw_bind_parameter(index, to_sqlite(value)?)?;
        highest = highest.max(number);
    }
    if highest != values.len() {
        return Err(rusqlite::Error::InvalidParameterCount(values.len(), highest));
    }
    let mut rows = prepared.raw_query();
    while let Some(row) = rows.next()? {
        each(row)?;
    }
    Ok(())
}

fn to_sqlite(value: &SqlValue) -> rusqlite::Result<ToSqlOutput<'_>> {
    Ok(match value {
        SqlValue::Bool(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Integer((*value).into())),
        SqlValue::Integer(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
        SqlValue::Real(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Real(*value)),
        SqlValue::Text(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
        SqlValue::Bytes(Some(value)) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
        SqlValue::Uuid(Some(value)) => ToSqlOutput::Owned(Value::Text(value.to_string())),
        SqlValue::Timestamp(Some(value)) => {
            let formatted = value.to_offset(UtcOffset::UTC).format(TIMESTAMP);
            let failed = |error: time::error::Format| rusqlite::Error::ToSqlConversionFailure(error.into());
            ToSqlOutput::Owned(Value::Text(formatted.map_err(failed)?))
        }
        // A null of any type.
        _ => ToSqlOutput::Borrowed(ValueRef::Null),
    })
}

fn from_sqlite(value: ValueRef<'_>) -> rusqlite::Result<SqlValue> {
    Ok(match value {
        ValueRef::Null => SqlValue::Text(None),
        ValueRef::Integer(value) => value.into(),
        ValueRef::Real(value) => value.into(),
        ValueRef::Text(_) => value.as_str()?.into(),
        ValueRef::Blob(value) => value.into(),
    })
}

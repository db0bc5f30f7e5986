//! Statements on PostgreSQL.

use std::sync::Arc;

use es_core::{HandlerError, Notification, PersistenceError, time::OffsetDateTime, uuid::Uuid};
use es_postgres::{
    PostgresDatastore, PostgresProjection,
    sqlx::{
        self, Arguments, AssertSqlSafe, Column, Postgres, Row, SqlSafeStr, SqlStr, Transaction, TypeInfo,
        ValueRef,
        postgres::{PgArguments, PgRow},
    },
};

use super::{NoRow, error::StatementError, statement::highest_parameter};
use crate::{DynSqlProjection, Sql, SqlRow, SqlValue};

/// Runs the statements of a projection.
pub(crate) struct PostgresStatements {
    pub(crate) projection: Box<dyn DynSqlProjection>,
    /// True if statements are kept prepared in the session.
    pub(crate) is_persistent: bool,
}

impl PostgresProjection for PostgresStatements {
    type Error = HandlerError;

    async fn set_up(&mut self, transaction: &mut Transaction<'_, Postgres>) -> Result<(), HandlerError> {
        execute(transaction, self.projection.set_up(), self.is_persistent).await
    }

    async fn project(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let statements = self.projection.project(notification)?;
        execute(transaction, statements, self.is_persistent).await
    }

    async fn park(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        notification: &Notification,
        failure: HandlerError,
    ) -> Result<(), HandlerError> {
        let statements = self.projection.park(notification, failure)?;
        execute(transaction, statements, self.is_persistent).await
    }
}

/// Runs statements; an error names the statement.
async fn execute(
    transaction: &mut Transaction<'_, Postgres>,
    statements: Vec<Sql>,
    is_persistent: bool,
) -> Result<(), HandlerError> {
    for statement in statements {
        let named = |error: HandlerError| StatementError::new(statement.postgres_text(), error);
        let arguments = arguments(&statement).map_err(|error| named(error.into()))?;
        let query = sqlx::query_with(text(&statement), arguments).persistent(is_persistent);
        let executed = query.execute(&mut **transaction).await;
        let rows = executed.map_err(|error| named(error.into()))?.rows_affected();
        if rows == 0 && statement.requires_row() {
            return Err(named(NoRow.into()).into());
        }
    }
    Ok(())
}

/// Runs a query.
pub(crate) async fn fetch(
    datastore: &PostgresDatastore,
    query: &Sql,
) -> Result<Vec<SqlRow>, PersistenceError> {
    let mut names: Option<Arc<[String]>> = None;
    let decode = |row: &PgRow| {
        let new = || row.columns().iter().map(|column| column.name().to_owned()).collect();
        let names = names.get_or_insert_with(new);
        let values = (0..names.len()).map(|index| from_postgres(row, index));
        Ok(SqlRow::new(Arc::clone(names), values.collect::<Result<_, PersistenceError>>()?))
    };
    datastore.fetch(text(query), arguments(query)?, decode).await
}

fn text(statement: &Sql) -> SqlStr {
    // The caller's text, which is not made of values.
    AssertSqlSafe(statement.postgres_text()).into_sql_str()
}

fn arguments(statement: &Sql) -> Result<PgArguments, PersistenceError> {
    let (values, highest) = (statement.values().len(), highest_parameter(statement.postgres_text()));
    if highest != values {
        return Err(PersistenceError::programming(format!(
            "the statement has {values} values and the highest parameter ${highest}"
        )));
    }
    let mut arguments = PgArguments::default();
    for value in statement.values() {
        let added = match value {
            SqlValue::Bool(value) => arguments.add(value),
            SqlValue::Integer(value) => arguments.add(value),
            SqlValue::Real(value) => arguments.add(value),
            SqlValue::Text(value) => arguments.add(value),
            SqlValue::Bytes(value) => arguments.add(value),
            SqlValue::Uuid(value) => arguments.add(value),
            SqlValue::Timestamp(value) => arguments.add(value),
        };
        added.map_err(|error| {
            PersistenceError::data("a value cannot be encoded for PostgreSQL").with_source(error)
        })?;
    }
    Ok(arguments)
}

fn from_postgres(row: &PgRow, index: usize) -> Result<SqlValue, PersistenceError> {
    let name = row.column(index).name();
    let failed = |error: sqlx::Error| {
        PersistenceError::data(format!("column {name:?} cannot be decoded")).with_source(error)
    };
    let column = row.try_get_raw(index).map_err(failed)?;
    if column.is_null() {
        return Ok(SqlValue::Text(None));
    }
    let type_info = column.type_info();
    let value = match type_info.name() {
        "BOOL" => row.try_get::<bool, _>(index).map(SqlValue::from),
        "INT2" => row.try_get::<i16, _>(index).map(SqlValue::from),
        "INT4" => row.try_get::<i32, _>(index).map(SqlValue::from),
        "INT8" => row.try_get::<i64, _>(index).map(SqlValue::from),
        "FLOAT4" => row.try_get::<f32, _>(index).map(SqlValue::from),
        "FLOAT8" => row.try_get::<f64, _>(index).map(SqlValue::from),
        "TEXT" | "VARCHAR" | "CHAR" | "NAME" => row.try_get::<String, _>(index).map(SqlValue::from),
        "BYTEA" => row.try_get::<Vec<u8>, _>(index).map(SqlValue::from),
        "UUID" => row.try_get::<Uuid, _>(index).map(SqlValue::from),
        "TIMESTAMPTZ" => row.try_get::<OffsetDateTime, _>(index).map(SqlValue::from),
        other => {
            return Err(PersistenceError::not_supported(format!(
                "column {name:?} has the type {other}: cast it, for example CAST({name} AS TEXT), or to BIGINT"
            )));
        }
    };
    value.map_err(failed)
}

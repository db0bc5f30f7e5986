//! Writes to a PostgreSQL database.

use es_core::{Notification, uuid::Uuid};
use es_factory::Environment;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::moved::moved;
use crate::{
    catalog::postgres::{Tables, connect, failed, key_columns},
    failure::Failure,
};

pub(crate) struct PostgresWriter {
    connection: PgConnection,
    tables: Tables,
    /// True if the tracking table has one row for each consumer.
    is_row_per_application: bool,
}

impl PostgresWriter {
    pub(super) async fn open(environment: &Environment) -> Result<Self, Failure> {
        let (mut connection, _) = connect(environment).await?;
        let tables = Tables::of(environment);
        let columns = sqlx::query_scalar(AssertSqlSafe(key_columns(&tables.tracking)));
        let columns: i64 = columns.fetch_one(&mut connection).await.map_err(|error| failed(&error))?;
        Ok(Self { connection, tables, is_row_per_application: columns == 1 })
    }

    /// Verifies that the ids come from a sequence of the column, which then continues after the given ids.
    pub(super) async fn verify_ids(&mut self) -> Result<(), Failure> {
        let select = format!("SELECT {}", sequence(&self.tables));
        let select = sqlx::query_scalar(AssertSqlSafe(select));
        let sequence: Option<String> =
            select.fetch_one(&mut self.connection).await.map_err(|error| failed(&error))?;
        if sequence.is_some() {
            return Ok(());
        }
        let table = &self.tables.events.quoted;
        Err(Failure::usage(format!("notification_id of table {table} has no sequence of its own"))
            .with_hint("--renumber uses the ids that the table gives out"))
    }

    pub(super) async fn set_position(
        &mut self,
        consumer: &str,
        expected: Option<i64>,
        position: Option<i64>,
    ) -> Result<(), Failure> {
        let recorded = self.replace(consumer, expected, position).await.map_err(|error| failed(&error))?;
        let is_moved = recorded != expected;
        if is_moved { Err(moved(consumer, expected.unwrap_or(0), recorded.unwrap_or(0))) } else { Ok(()) }
    }

    /// Replaces a position in one transaction, unless another one is recorded; returns the recorded one.
    async fn replace(
        &mut self,
        consumer: &str,
        expected: Option<i64>,
        position: Option<i64>,
    ) -> Result<Option<i64>, sqlx::Error> {
        let tracking = &self.tables.tracking.quoted;
        let mut transaction = self.connection.begin().await?;
        // Excludes other writers of positions, also of a consumer without a row.
        let lock = format!("LOCK TABLE {tracking} IN SHARE ROW EXCLUSIVE MODE");
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
        let select = format!("SELECT max(notification_id) FROM {tracking} WHERE application_name = $1");
        let select = sqlx::query_scalar(AssertSqlSafe(select)).bind(consumer);
        let recorded: Option<i64> = select.fetch_one(&mut *transaction).await?;
        if recorded != expected {
            return Ok(recorded);
        }
        let delete = format!("DELETE FROM {tracking} WHERE application_name = $1");
        sqlx::query(AssertSqlSafe(delete)).bind(consumer).execute(&mut *transaction).await?;
        if let Some(position) = position {
            let insert =
                format!("INSERT INTO {tracking} (application_name, notification_id) VALUES ($1, $2)");
            sqlx::query(AssertSqlSafe(insert))
                .bind(consumer)
                .bind(position)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(expected)
    }

    pub(super) async fn append(
        &mut self,
        notifications: &[Notification],
        consumer: &str,
        expected: i64,
    ) -> Result<(), Failure> {
        let recorded = self.write(notifications, consumer, expected).await.map_err(|error| failed(&error))?;
        if recorded == expected { Ok(()) } else { Err(moved(consumer, expected, recorded)) }
    }

    /// Writes in one transaction, unless another position is recorded; returns the recorded one.
    async fn write(
        &mut self,
        notifications: &[Notification],
        consumer: &str,
        expected: i64,
    ) -> Result<i64, sqlx::Error> {
        let Some(last) = notifications.last() else { return Ok(expected) };
        let (events, tracking) = (&self.tables.events.quoted, &self.tables.tracking.quoted);
        let mut transaction = self.connection.begin().await?;
        // Excludes all writers, as the Python library does: ids become visible in order.
        let lock = format!("LOCK TABLE {events} IN EXCLUSIVE MODE");
        sqlx::query(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
        let select =
            format!("SELECT coalesce(max(notification_id), 0) FROM {tracking} WHERE application_name = $1");
        let select = sqlx::query_scalar(AssertSqlSafe(select)).bind(consumer);
        let recorded: i64 = select.fetch_one(&mut *transaction).await?;
        if recorded != expected {
            return Ok(recorded);
        }
        let insert = format!(
            "INSERT INTO {events} (originator_id, originator_version, topic, state, notification_id) \
             OVERRIDING SYSTEM VALUE SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[], \
             $5::bigint[])"
        );
        let column = |notification: &Notification| notification.event.originator_version;
        sqlx::query(AssertSqlSafe(insert))
            .bind(
                notifications
                    .iter()
                    .map(|notification| notification.event.originator_id)
                    .collect::<Vec<Uuid>>(),
            )
            .bind(notifications.iter().map(column).collect::<Vec<i64>>())
            .bind(
                notifications
                    .iter()
                    .map(|notification| notification.event.topic.as_str())
                    .collect::<Vec<_>>(),
            )
            .bind(notifications.iter().map(|notification| &*notification.event.state).collect::<Vec<&[u8]>>())
            .bind(notifications.iter().map(|notification| notification.id).collect::<Vec<i64>>())
            .execute(&mut *transaction)
            .await?;
        let replace = if self.is_row_per_application {
            " ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id"
        } else {
            ""
        };
        let track =
            format!("INSERT INTO {tracking} (application_name, notification_id) VALUES ($1, $2){replace}");
        sqlx::query(AssertSqlSafe(track)).bind(consumer).bind(last.id).execute(&mut *transaction).await?;
        // The next id that is allocated follows. A sequence is not rolled back; a gap is allowed.
        let advance = format!("SELECT setval({}, $1)", sequence(&self.tables));
        sqlx::query(AssertSqlSafe(advance)).bind(last.id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(expected)
    }
}

/// Returns the sequence of the ids as an expression; null if the column has none of its own.
fn sequence(tables: &Tables) -> String {
    let table = tables.events.quoted.replace('\\', "\\\\").replace('\'', "''");
    format!("pg_get_serial_sequence(E'{table}', 'notification_id')")
}

//! Records a position in a transaction that continues: first of all, so that a rival waits for it, or meets a
//! conflict, before it does anything else.
//!
//! Only the row of the position is locked. An append also takes the lock of the events table, which must not
//! be held while handlers run.
//!
//! The statements also run in transactions of the caller's, with the caller's search path: every name is
//! qualified.

use es_core::{PersistenceError, Tracking};
use sqlx::{AssertSqlSafe, Row, postgres::PgConnection};

use super::{
    append::LAYOUT_CHANGED,
    appender_cache::AppenderCache,
    outcome::late,
    statement::{EQ, GE, LT},
};
use crate::{
    error::{self, UNIQUE_VIOLATION},
    schema::{Layout, TrackingTable},
};

/// Returns the statement that records a position: `$1` application name, `$2` notification ids, ascending,
/// `$3` the last of them, which is the position, `$4` the position that is expected before it. It returns the
/// transaction's id, or no row if the position is refused.
fn statement(table: &TrackingTable, expected_position: Option<i64>) -> String {
    let layout = table.layout;
    let table = table.name.quoted();
    match (layout, expected_position) {
        (Layout::RowPerApplication, None | Some(0)) => {
            // A rival may have processed a smaller batch: the first of the notifications counts.
            let recorded_before = expected_position.map_or(format!("{LT} $2[1]"), |_| format!("{EQ} $4"));
            format!(
                "INSERT INTO {table} AS t (application_name, notification_id) VALUES ($1, $3) \
                 ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id \
                 WHERE t.notification_id {recorded_before} RETURNING pg_catalog.txid_current()"
            )
        }
        (Layout::RowPerApplication, Some(_)) => format!(
            "UPDATE {table} SET notification_id = $3 \
             WHERE application_name {EQ} $1 AND notification_id {EQ} $4 RETURNING pg_catalog.txid_current()"
        ),
        // A row for each notification, as the layout has it: rivals with different batches conflict in the
        // rows of the notifications that both have handled, which the key allows once.
        (Layout::RowPerRecord, _) => {
            let recorded = format!("FROM {table} AS t WHERE t.application_name {EQ} $1");
            let is_accepted = match expected_position {
                None => format!("NOT EXISTS (SELECT {recorded} AND t.notification_id {GE} $2[1])"),
                Some(_) => {
                    format!("COALESCE((SELECT pg_catalog.max(t.notification_id) {recorded}), 0) {EQ} $4")
                }
            };
            format!(
                "INSERT INTO {table} (application_name, notification_id) \
                 SELECT $1, r.id FROM pg_catalog.unnest($2) AS r (id) WHERE {is_accepted} \
                 ORDER BY r.id RETURNING pg_catalog.txid_current()"
            )
        }
    }
}

/// Records the position after these notifications. Returns the transaction's id.
///
/// # Errors
/// A conflict if the position is refused, where the transaction can continue; otherwise as [`not_recorded`].
pub(crate) async fn record_position(
    appender: &AppenderCache,
    connection: &mut PgConnection,
    tracking: &Tracking,
    ids: &[i64],
) -> Result<Result<i64, PersistenceError>, sqlx::Error> {
    let tables = appender.get();
    let Some(table) = &tables.tables.tracking else {
        let error = PersistenceError::internal("a recorder without a tracking table");
        return Err(sqlx::Error::Configuration(error.into()));
    };
    let is_persistent = !appender.database.options.transaction_pooler;
    let expected_position = tracking.expected_position();
    let rows = sqlx::query(AssertSqlSafe(statement(table, expected_position)))
        .bind(tracking.application_name())
        .bind(ids)
        .bind(tracking.notification_id())
        .bind(expected_position)
        .persistent(is_persistent)
        .fetch_all(&mut *connection);
    if let Some(row) = rows.await?.first() {
        return row.try_get(0).map(Ok);
    }
    let recorded = format!(
        "SELECT pg_catalog.max(notification_id)::pg_catalog.int8 FROM {} WHERE application_name {EQ} $1",
        table.name.quoted()
    );
    let recorded = sqlx::query_scalar(AssertSqlSafe(recorded)).bind(tracking.application_name());
    let recorded = recorded.persistent(is_persistent).fetch_one(connection).await?;
    Ok(Err(late(tracking, recorded)))
}

/// Returns the error for a position that was not recorded. If the statement may have failed because the table
/// was migrated to another layout, inspects the tables again.
pub(crate) async fn not_recorded(
    appender: &AppenderCache,
    tracking: &Tracking,
    failed: sqlx::Error,
) -> PersistenceError {
    let is_layout_changed = error::has_sqlstate(&failed, &LAYOUT_CHANGED);
    appender.refresh_if(is_layout_changed).await;
    // With a row for each notification, a rival's row is met as a unique violation.
    if error::has_sqlstate(&failed, &[UNIQUE_VIOLATION]) {
        return tracking.conflict().into();
    }
    let is_transient = is_layout_changed || error::is_lost(&failed);
    let failed = error::from_statement("recording a position", failed);
    if is_transient { failed.transient() } else { failed }
}

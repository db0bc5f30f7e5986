//! Recording a position in a transaction that goes on: first of all, so that a rival waits for it, or
//! loses, before it does anything else.
//!
//! Only the position's own row is locked. Appending takes the events table's lock as well, which nobody
//! must hold while handlers run.

use es_core::{PersistenceError, Tracking};
use sqlx::{AssertSqlSafe, Row, postgres::PgConnection};

use crate::{
    error,
    schema::{Layout, TrackingTable},
    store::Store,
    write::LAYOUT_CHANGED,
};

/// The SQLSTATE of a unique violation.
const TAKEN: [&str; 1] = ["23505"];

// The statements run in the caller's transactions too, with the caller's search path: every name is qualified.
const EQ: &str = "OPERATOR(pg_catalog.=)";
const LT: &str = "OPERATOR(pg_catalog.<)";
const GE: &str = "OPERATOR(pg_catalog.>=)";

/// The statement that records a position: `$1` application, `$2` ids of notifications, ascending, `$3`
/// the last of them, which is the position, `$4` the position that must be recorded until then. It
/// answers with the transaction's id, and not at all when the position is refused.
fn statement(table: &TrackingTable, expected_position: Option<i64>) -> String {
    let layout = table.layout;
    let table = table.name.quoted();
    match (layout, expected_position) {
        (Layout::RowPerApplication, None | Some(0)) => {
            // A rival may have taken a smaller batch: what counts is the first of the notifications.
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
        // A row for each notification, as the layout has it: rivals that take different batches meet
        // in the rows of what both have handled, which the key allows once.
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

impl Store {
    /// Records the position after these notifications; the transaction's id, or why the position is
    /// refused.
    ///
    /// With a row for each notification, a rival's may also be met as a unique violation.
    pub(crate) async fn track_in(
        &self,
        connection: &mut PgConnection,
        tracking: &Tracking,
        ids: &[i64],
    ) -> Result<Result<i64, PersistenceError>, sqlx::Error> {
        let appender = self.appender.get();
        let Some(table) = &appender.tables.tracking else {
            let error = PersistenceError::internal("a recorder without a tracking table");
            return Err(sqlx::Error::Configuration(error.into()));
        };
        let is_persistent = !self.datastore.0.options.transaction_pooler;
        let expected_position = tracking.expected_position();
        let statement = sqlx::query(AssertSqlSafe(statement(table, expected_position)))
            .bind(tracking.application_name())
            .bind(ids)
            .bind(tracking.notification_id())
            .bind(expected_position)
            .persistent(is_persistent);
        let rows = statement.fetch_all(&mut *connection).await?;
        if let Some(row) = rows.first() {
            return row.try_get(0).map(Ok);
        }
        let recorded = format!(
            "SELECT pg_catalog.max(notification_id)::pg_catalog.int8 FROM {} WHERE application_name {EQ} $1",
            table.name.quoted()
        );
        let recorded = sqlx::query_scalar(AssertSqlSafe(recorded)).bind(tracking.application_name());
        let recorded = recorded.persistent(is_persistent).fetch_one(connection).await?;
        // One that would be accepted now was not when the statement ran.
        Ok(Err(tracking.validate(recorded).err().unwrap_or_else(|| tracking.conflict().into())))
    }

    /// Looks again at the table's layout when recording a position has failed as it would in another
    /// layout: somebody may have migrated the table.
    pub(crate) async fn look_again(&self, failed: &sqlx::Error) {
        let may_differ = error::has_sqlstate(failed, &LAYOUT_CHANGED);
        if may_differ && let Err(error) = self.appender.refresh().await {
            tracing::debug!(%error, "cannot look again at what stands in the database");
        }
    }
}

/// The error for a position that was not recorded, nor anything with it.
pub(crate) fn not_recorded(tracking: &Tracking, failed: sqlx::Error) -> PersistenceError {
    if error::has_sqlstate(&failed, &TAKEN) {
        return tracking.conflict().into();
    }
    let may_pass = error::is_lost(&failed) || error::has_sqlstate(&failed, &LAYOUT_CHANGED);
    let failed = error::from_statement("recording a position", failed);
    if may_pass { failed.transient() } else { failed }
}

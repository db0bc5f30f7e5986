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

/// The statement that records a position: `$1` application, `$2` ids of notifications, ascending, the
/// last of which is the position. It answers with the transaction's id, and not at all when what is
/// recorded has reached the first of them: a rival may have taken a smaller portion. It runs in the caller's
/// transactions too, with the caller's search path, so that every name in it is qualified.
fn statement(table: &TrackingTable) -> String {
    let layout = table.layout;
    let table = table.name.quoted();
    match layout {
        Layout::RowPerApplication => format!(
            "INSERT INTO {table} AS t (application_name, notification_id) \
             VALUES ($1, $2[pg_catalog.cardinality($2)]) \
             ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id \
             WHERE t.notification_id OPERATOR(pg_catalog.<) $2[1] RETURNING pg_catalog.txid_current()"
        ),
        // A row for each notification, as the layout has it: rivals that take different portions meet
        // in the rows of what both have handled, which the key allows once.
        Layout::RowPerRecord => format!(
            "INSERT INTO {table} (application_name, notification_id) \
             SELECT $1, r.id FROM pg_catalog.unnest($2) AS r (id) WHERE NOT EXISTS (SELECT FROM {table} AS t \
             WHERE t.application_name OPERATOR(pg_catalog.=) $1 \
             AND t.notification_id OPERATOR(pg_catalog.>=) $2[1]) \
             ORDER BY r.id RETURNING pg_catalog.txid_current()"
        ),
    }
}

impl Store {
    /// Records the position after these notifications; the transaction's id, or none when one of them
    /// was processed before.
    ///
    /// With a row for each notification, a rival's may also be met as a unique violation.
    pub(crate) async fn track_in(
        &self,
        connection: &mut PgConnection,
        application_name: &str,
        ids: &[i64],
    ) -> Result<Option<i64>, sqlx::Error> {
        let appender = self.appender.get();
        let Some(table) = &appender.tables.tracking else {
            let error = PersistenceError::internal("a recorder without a tracking table");
            return Err(sqlx::Error::Configuration(error.into()));
        };
        let statement = sqlx::query(AssertSqlSafe(statement(table)))
            .bind(application_name)
            .bind(ids)
            .persistent(!self.datastore.0.options.transaction_pooler);
        let rows = statement.fetch_all(connection).await?;
        rows.first().map(|row| row.try_get(0)).transpose()
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

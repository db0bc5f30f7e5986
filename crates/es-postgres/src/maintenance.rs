//! Reading events by key, and replacing their states.

use es_core::{
    DEFAULT_PAGE_BYTES, EventKey, PersistenceError, StateMaintenance, StateReplacement, StoredEvent,
};
use sqlx::{AssertSqlSafe, postgres::PgConnection};
use uuid::Uuid;

use crate::{
    connection::{
        Database, LeaseKind, Select,
        session::{self, Access},
    },
    error,
    recorder::{PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder, Store},
    schema::{
        TableName,
        rows::{EVENT_COLUMNS, STATE, Topics},
    },
};

macro_rules! maintain_states {
    ($($recorder:ident),+) => {$(
        impl StateMaintenance for $recorder {
            async fn select_by_key(
                &self,
                after: Option<EventKey>,
                limit: usize,
            ) -> Result<Vec<StoredEvent>, PersistenceError> {
                select_by_key(&self.0, after, limit).await
            }

            async fn replace_states(
                &self,
                replacements: Vec<StateReplacement>,
            ) -> Result<usize, PersistenceError> {
                replace_states(&self.0.database, self.0.events()?, replacements).await
            }
        }
    )+};
}

maintain_states!(PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder);

async fn select_by_key(
    store: &Store,
    after: Option<EventKey>,
    limit: usize,
) -> Result<Vec<StoredEvent>, PersistenceError> {
    let mut select = Select::new(format!("SELECT {EVENT_COLUMNS} FROM {}", store.events()?.quoted()));
    if let Some(EventKey { originator_id, originator_version }) = after {
        let id = select.argument(originator_id)?;
        let version = select.argument(originator_version)?;
        select.text.push_str(&format!(" WHERE (originator_id, originator_version) > (${id}, ${version})"));
    }
    select.text.push_str(" ORDER BY originator_id, originator_version");
    select.limit(limit)?;
    let mut query = select.into_query("selecting events by key");
    query.byte_limit = Some((STATE, DEFAULT_PAGE_BYTES.get()));
    let mut topics = Topics::default();
    store.database.fetch(&query, |row| topics.event(row)).await
}

async fn replace_states(
    database: &Database,
    events: &TableName,
    replacements: Vec<StateReplacement>,
) -> Result<usize, PersistenceError> {
    let Database { options, connections, .. } = database;
    let mut lease = connections.lease(LeaseKind::Write).await?;
    let backend = lease.backend();
    let connection: &mut PgConnection = &mut lease;
    let replacing = async {
        if !options.transaction_pooler {
            return update(connection, events, &replacements, true).await;
        }
        session::run(connection, &session::begin(options, Access::ReadWrite)).await?;
        let updated = update(connection, events, &replacements, false).await?;
        session::run(connection, "COMMIT").await?;
        Ok(updated)
    };
    let updated = connections.with_liveness_check(backend, replacing).await;
    let updated = updated.unwrap_or_else(Err).map_err(|failed| {
        let is_lost = error::is_lost(&failed);
        let failed = error::from_statement("replacing states", failed);
        // Repeating it is safe.
        if is_lost { failed.transient() } else { failed }
    })?;
    lease.finish();
    Ok(updated)
}

async fn update(
    connection: &mut PgConnection,
    events: &TableName,
    replacements: &[StateReplacement],
    is_persistent: bool,
) -> Result<usize, sqlx::Error> {
    // Rows are locked in the order of their keys, so that two replacements wait for each other and do not
    // deadlock.
    let sql = format!(
        "WITH r AS MATERIALIZED (SELECT u.* FROM unnest($1, $2, $3, $4) \
         AS u (originator_id, originator_version, current, replacement) JOIN {table} AS e \
         ON e.originator_id = u.originator_id AND e.originator_version = u.originator_version \
         ORDER BY u.originator_id, u.originator_version FOR UPDATE OF e) \
         UPDATE {table} AS t SET state = r.replacement FROM r WHERE t.originator_id = r.originator_id \
         AND t.originator_version = r.originator_version AND t.state = r.current",
        table = events.quoted()
    );
    let column = |value: fn(&StateReplacement) -> &[u8]| replacements.iter().map(value).collect::<Vec<_>>();
    let ids: Vec<Uuid> = replacements.iter().map(|replacement| replacement.key.originator_id).collect();
    let versions: Vec<i64> =
        replacements.iter().map(|replacement| replacement.key.originator_version).collect();
    let done = sqlx::query(AssertSqlSafe(sql))
        .bind(ids)
        .bind(versions)
        .bind(column(|replacement| &replacement.current))
        .bind(column(|replacement| &replacement.replacement))
        .persistent(is_persistent)
        .execute(connection)
        .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

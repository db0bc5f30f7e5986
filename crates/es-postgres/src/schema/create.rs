//! Creation of missing tables and indexes, with the statements of the Python library.

use es_core::{PersistenceError, Tracking};
use sqlx::postgres::PgConnection;

use super::{
    inspect::{self, CatalogState, Inspection, TableSpec},
    name::TableName,
};
use crate::{
    connection::{Database, LeaseKind, session},
    error,
    quote::{quote_identifier, quote_literal},
};

/// The number of attempts to create an object that another process creates at the same time.
const ATTEMPTS: usize = 5;

/// SQLSTATEs of a lost race: duplicate table and object, a unique violation in a catalog, "tuple concurrently
/// updated", deadlock, serialization failure.
const LOST_RACE: [&str; 6] = ["42P07", "42710", "23505", "XX000", "40P01", "40001"];

/// Inspects the tables, after creating the missing ones where `create_missing` allows it.
///
/// Each step is one message of the simple query protocol that begins and ends its own transaction. A pooler
/// in transaction mode therefore runs it on one server connection. Several messages without a transaction
/// could run on several, and read the answers to other clients' statements.
pub(crate) async fn prepare(
    database: &Database,
    spec: &TableSpec,
    create_missing: bool,
) -> Result<CatalogState, PersistenceError> {
    let mut lease = database.connections.lease(LeaseKind::Read).await?;
    let backend = lease.backend();
    let preparing = async {
        let mut found = inspect::inspect(&mut lease, spec).await?;
        let missing = if create_missing { missing(&found, spec) } else { Vec::new() };
        if !missing.is_empty() {
            for (table, statements) in missing {
                create(&mut lease, table, &statements).await?;
            }
            found = inspect::inspect(&mut lease, spec).await?;
        }
        found.check(spec, database.options.ordering)
    };
    let prepared = database.connections.with_liveness_check(backend, preparing).await;
    let state = prepared.map_err(|failed| error::from_statement("inspecting the tables", failed))??;
    lease.finish();
    Ok(state)
}

/// Returns the tables that are missing, or have no index, with the statements that create them.
fn missing<'a>(found: &Inspection, spec: &'a TableSpec) -> Vec<(&'a TableName, String)> {
    let mut missing = Vec::new();
    if let (Some(info), Some(table)) = (&found.events, &spec.events) {
        let quoted = table.quoted();
        let mut statements = String::new();
        if !info.exists {
            let id = if spec.notifications { "notification_id bigserial, " } else { "" };
            statements = format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (originator_id uuid NOT NULL, \
                 originator_version bigint NOT NULL, topic text, state bytea, \
                 {id}PRIMARY KEY (originator_id, originator_version)); "
            );
        }
        let lacks_index = !info.exists || info.has_ids && !info.has_unique_key("notification_id");
        if spec.notifications && lacks_index {
            let index = quote_identifier(&table.id_index());
            statements +=
                &format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {quoted} (notification_id ASC);");
        }
        if !statements.is_empty() {
            missing.push((table, statements));
        }
    }
    if let (Some(info), Some(table)) = (&found.tracking, &spec.tracking)
        && !info.exists
    {
        let (quoted, name) = (table.quoted(), Tracking::RESERVED_NAME);
        let statements = format!(
            "CREATE TABLE IF NOT EXISTS {quoted} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name)); INSERT INTO {quoted} (application_name, notification_id) \
             VALUES ('{name}', 1) ON CONFLICT DO NOTHING;"
        );
        missing.push((table, statements));
    }
    missing
}

/// Creates a table or an index, one process at a time.
pub(crate) async fn create(
    connection: &mut PgConnection,
    table: &TableName,
    statements: &str,
) -> Result<(), PersistenceError> {
    // The advisory lock excludes processes of this library, but not the Python library: hence the attempts.
    let batch = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; {} SELECT pg_catalog.pg_advisory_xact_lock(\
         pg_catalog.hashtextextended({}, 0)); {statements} COMMIT",
        session::PIN_SEARCH_PATH,
        quote_literal(&table.quoted()),
    );
    for attempt in 1.. {
        let Err(failed) = session::run(connection, &batch).await else { break };
        let rolled_back = session::run(connection, "ROLLBACK").await;
        rolled_back.map_err(|error| error::from_statement("rolling back", error))?;
        if attempt >= ATTEMPTS || !error::has_sqlstate(&failed, &LOST_RACE) {
            return Err(error::from_statement(&format!("creating {}", table.quoted()), failed));
        }
    }
    Ok(())
}

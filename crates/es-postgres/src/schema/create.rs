//! Creation of missing tables and indexes, with the statements of the Python library.

use es_core::{PersistenceError, Tracking};
use sqlx::postgres::PgConnection;

use super::{
    inspect::Missing,
    name::{quote_identifier, quote_literal},
};
use crate::{connection::session, error};

/// How often a creation is retried when another process creates the same object at the same time.
const ATTEMPTS: usize = 5;

/// SQLSTATEs of a lost race: duplicate table and object, a unique violation in a catalogue, "tuple
/// concurrently updated", deadlock, serialization failure.
const LOST_RACE: [&str; 6] = ["42P07", "42710", "23505", "XX000", "40P01", "40001"];

/// Creates a table or an index, one process at a time.
pub(crate) async fn create(
    connection: &mut PgConnection,
    missing: Missing<'_>,
) -> Result<(), PersistenceError> {
    let table = missing.table();
    // The advisory lock excludes processes of this library. The Python library does not take it, hence
    // the attempts.
    let batch = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; {} SELECT pg_catalog.pg_advisory_xact_lock(\
         pg_catalog.hashtextextended({}, 0)); {} COMMIT",
        session::PIN_SEARCH_PATH,
        quote_literal(&table.quoted()),
        statements(&missing)
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

fn statements(missing: &Missing<'_>) -> String {
    let quoted = missing.table().quoted();
    match missing {
        Missing::Tracking(_) => format!(
            "CREATE TABLE IF NOT EXISTS {quoted} (application_name text, notification_id bigint, \
             PRIMARY KEY (application_name)); \
             INSERT INTO {quoted} (application_name, notification_id) VALUES ('{}', 1) \
             ON CONFLICT DO NOTHING;",
            Tracking::RESERVED_NAME
        ),
        Missing::Events(table) => format!(
            "CREATE TABLE IF NOT EXISTS {quoted} (originator_id uuid NOT NULL, \
             originator_version bigint NOT NULL, topic text, state bytea, notification_id bigserial, \
             PRIMARY KEY (originator_id, originator_version)); {}",
            statements(&Missing::IdIndex(table))
        ),
        Missing::IdIndex(table) => format!(
            "CREATE UNIQUE INDEX IF NOT EXISTS {} ON {quoted} (notification_id ASC);",
            quote_identifier(&table.id_index())
        ),
        Missing::Aggregates(_) => format!(
            "CREATE TABLE IF NOT EXISTS {quoted} (originator_id uuid NOT NULL, \
             originator_version bigint NOT NULL, topic text, state bytea, \
             PRIMARY KEY (originator_id, originator_version));"
        ),
    }
}

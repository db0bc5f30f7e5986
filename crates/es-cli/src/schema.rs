//! The statements that create the tables, as the library creates them. Tests compare the results.

use es_core::Tracking;
use es_factory::Environment;

use crate::catalog::{is_postgres, postgres::Tables};

/// The tables of SQLite.
const SQLITE: &str = "\
CREATE TABLE IF NOT EXISTS stored_events (
    originator_id TEXT, originator_version INTEGER, topic TEXT, state BLOB,
    PRIMARY KEY (originator_id, originator_version));
CREATE TABLE IF NOT EXISTS stored_snapshots (
    originator_id TEXT, originator_version INTEGER, topic TEXT, state BLOB,
    PRIMARY KEY (originator_id, originator_version)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tracking (
    application_name TEXT, notification_id INTEGER, PRIMARY KEY (application_name)) WITHOUT ROWID;
INSERT OR IGNORE INTO tracking VALUES ('__migration__', 1);
";

/// Returns the statements for the database that an environment selects.
pub(crate) fn statements(environment: &Environment) -> String {
    if environment.get("SQLITE_DBNAME").is_some() && !is_postgres(environment) {
        return SQLITE.to_owned();
    }
    let Tables { events, snapshots, tracking, .. } = Tables::of(environment);
    let columns = "originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text, state bytea";
    let key = "PRIMARY KEY (originator_id, originator_version)";
    let index = format!("{}_notification_id_idx", events.name).replace('"', "\"\"");
    let (events, snapshots, tracking) = (events.quoted, snapshots.quoted, tracking.quoted);
    let mark = Tracking::RESERVED_NAME;
    format!(
        "CREATE TABLE IF NOT EXISTS {events} (\n    {columns},\n    notification_id bigserial, {key});\n\
         CREATE UNIQUE INDEX IF NOT EXISTS \"{index}\" ON {events} (notification_id ASC);\n\
         CREATE TABLE IF NOT EXISTS {snapshots} (\n    {columns},\n    {key});\n\
         CREATE TABLE IF NOT EXISTS {tracking} (\n    application_name text, notification_id bigint, PRIMARY KEY \
         (application_name));\n\
         INSERT INTO {tracking} (application_name, notification_id) VALUES ('{mark}', 1) ON CONFLICT DO NOTHING;\n"
    )
}

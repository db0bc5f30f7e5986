//! The table of versions, and the statements on it.
//!
//! A transaction of a projector begins, after it has recorded its position, with the [`guard`]: it shares a
//! lock on the row of its version and verifies the epoch. A change begins with [`begin_change`], which
//! updates the rows of all versions of a projection: it waits for the transactions of their projectors, and
//! refuses those that come after it.

use crate::{ProjectionVersion, Sql, VersionState};

/// The columns that [`select`] returns, after which the position follows.
const COLUMNS: &str = "v.name, v.version, v.state, v.is_paused, v.epoch, v.live_from, v.consumer_name, v.tables, v.replaces, v.origin";

/// The version that is read has one row here.
pub(super) const TABLE: &str = "projection_versions";

/// Keeps a change of views and the readers of two of them from waiting for each other: the change fails, and
/// is tried again. It is below the time after which PostgreSQL looks for deadlocks.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '500ms'";

/// Returns the name of a table in a version.
pub(super) fn version_table(name: &str, version: u32) -> String {
    format!("{name}_v{version}")
}

/// Returns the name of the consumer of a version. The first one has the projection's name: it continues at
/// the position of a projection without versions.
pub(super) fn consumer_name(name: &str, version: u32) -> String {
    if version == 1 { name.to_owned() } else { format!("{name}@{version}") }
}

/// Returns what identifies the application of a projection: the name of its table of positions, without the
/// schema. Applications that share a schema have a table of positions each.
pub(super) fn origin(tracking: &str) -> String {
    tracking.rsplit('.').next().unwrap_or(tracking).trim_matches('"').to_owned()
}

pub(super) fn create_table() -> Sql {
    Sql::new(format!(
        "CREATE TABLE IF NOT EXISTS {TABLE} (name TEXT NOT NULL, version BIGINT NOT NULL, state TEXT NOT NULL, \
         is_paused BIGINT NOT NULL, epoch BIGINT NOT NULL, live_from BIGINT NOT NULL, \
         consumer_name TEXT NOT NULL, tables TEXT NOT NULL, replaces BIGINT, origin TEXT NOT NULL, \
         PRIMARY KEY (name, version))"
    ))
}

/// Adds a version, unless the versions of the projection are others than those that were read.
pub(super) fn register(
    (name, version): (&str, u32),
    tables: &[&str],
    origin: &str,
    is_active: bool,
    read: &[ProjectionVersion],
) -> Sql {
    let state = if is_active { VersionState::Active } else { VersionState::Building };
    Sql::new(format!(
        "INSERT INTO {TABLE} SELECT $1, $2, $3, 0, COALESCE(MAX(epoch), 0), COALESCE(MAX(live_from), 0), \
         $4, $5, NULL, $6 FROM {TABLE} WHERE name = $1 \
         HAVING COUNT(*) = $7 AND COALESCE(MAX(epoch), 0) = $8 RETURNING version"
    ))
    .bind(name)
    .bind(version)
    .bind(state.as_str())
    .bind(consumer_name(name, version))
    .bind(tables.join(" "))
    .bind(origin)
    .bind(i64::try_from(read.len()).unwrap_or(i64::MAX))
    .bind(read.iter().map(|version| version.epoch).max().unwrap_or(0))
    .require_row()
}

/// Selects the versions of one projection, or of all.
pub(super) fn select(tracking: &str, name: Option<&str>) -> Sql {
    let filter = if name.is_some() { " WHERE v.name = $1" } else { "" };
    let query = Sql::new(format!(
        "SELECT {COLUMNS}, (SELECT MAX(t.notification_id) FROM {tracking} t \
         WHERE t.application_name = v.consumer_name) AS position \
         FROM {TABLE} v{filter} ORDER BY v.name, v.version"
    ));
    name.into_iter().fold(query, Sql::bind)
}

/// Selects `table` or `view`, if there is one of this name.
pub(super) fn kind_of_relation(name: &str) -> Sql {
    Sql::new("SELECT type FROM sqlite_schema WHERE type IN ('table', 'view') AND name = $1")
        .postgres(
            "SELECT CASE relkind WHEN 'v' THEN 'view' ELSE 'table' END FROM pg_class \
             WHERE relname = $1 AND relnamespace = to_regnamespace(quote_ident(current_schema()))",
        )
        .bind(name)
}

/// Verifies that nothing has changed the projection's versions, and prevents it until the commit.
pub(super) fn guard(name: &str, version: u32, epoch: i64) -> Sql {
    let select = format!("SELECT 1 FROM {TABLE} WHERE name = $1 AND version = $2 AND epoch = $3");
    let for_share = format!("{select} FOR SHARE");
    Sql::new(select).postgres(for_share).bind(name).bind(version).bind(epoch).require_row()
}

/// Waits for the commits of all versions, and refuses later ones that expect the present epoch.
pub(super) fn begin_change(version: &ProjectionVersion) -> Vec<Sql> {
    let update =
        format!("UPDATE {TABLE} SET epoch = epoch + 1 WHERE name = $1 AND epoch = $2 RETURNING version");
    let update = Sql::new(update).bind(&version.name).bind(version.epoch).require_row();
    vec![on_postgres(LOCK_TIMEOUT), update]
}

/// Verifies that the position of `target` is at most `max_lag` behind that of `active`.
pub(super) fn require_lag(
    tracking: &str,
    target: &ProjectionVersion,
    active: &ProjectionVersion,
    max_lag: i64,
) -> Sql {
    let position = |parameter| {
        format!(
            "(SELECT COALESCE(MAX(notification_id), 0) FROM {tracking} WHERE application_name = {parameter})"
        )
    };
    Sql::new(format!("SELECT 1 WHERE {} - {} <= $3", position("$1"), position("$2")))
        .bind(&active.consumer_name)
        .bind(&target.consumer_name)
        .bind(max_lag)
        .require_row()
}

/// Sets the state of `target`, and its side effects to begin where those of `active` ended.
pub(super) fn activate(
    tracking: &str,
    target: &ProjectionVersion,
    active: &ProjectionVersion,
    replaces: Option<u32>,
) -> Vec<Sql> {
    let retire =
        format!("UPDATE {TABLE} SET state = 'retired', is_paused = 0 WHERE name = $1 AND version = $2");
    let activate = format!(
        "UPDATE {TABLE} SET state = 'active', is_paused = 0, replaces = $3, live_from = {} \
         WHERE name = $1 AND version = $2",
        effects_position(tracking, "$4", "$5")
    );
    vec![
        Sql::new(retire).bind(&active.name).bind(active.version),
        Sql::new(activate)
            .bind(&target.name)
            .bind(target.version)
            .bind(replaces)
            .bind(active.version)
            .bind(&active.consumer_name),
    ]
}

/// Keeps the position up to which the side effects of a version were made, before its position is deleted.
pub(super) fn keep_effects_position(tracking: &str, version: &ProjectionVersion) -> Sql {
    let update = format!(
        "UPDATE {TABLE} SET live_from = {} WHERE name = $1 AND version = $2",
        effects_position(tracking, "$2", "$3")
    );
    Sql::new(update).bind(&version.name).bind(version.version).bind(&version.consumer_name)
}

/// The position up to which a version of the projection `$1`, and those before it, have made side effects.
fn effects_position(tracking: &str, version: &str, consumer_name: &str) -> String {
    format!(
        "(SELECT MAX(p) FROM (SELECT live_from AS p FROM {TABLE} WHERE name = $1 AND version = {version} \
         UNION ALL SELECT MAX(notification_id) FROM {tracking} WHERE application_name = {consumer_name}) AS e)"
    )
}

pub(super) fn set_paused(version: &ProjectionVersion, is_paused: bool) -> Sql {
    Sql::new(format!("UPDATE {TABLE} SET is_paused = $3 WHERE name = $1 AND version = $2"))
        .bind(&version.name)
        .bind(version.version)
        .bind(i64::from(is_paused))
}

pub(super) fn set_state(version: &ProjectionVersion, state: VersionState) -> Sql {
    Sql::new(format!("UPDATE {TABLE} SET state = $3 WHERE name = $1 AND version = $2"))
        .bind(&version.name)
        .bind(version.version)
        .bind(state.as_str())
}

/// Verifies that the other versions of the projection were dropped.
pub(super) fn require_last(version: &ProjectionVersion) -> Sql {
    let other = format!("SELECT 1 FROM {TABLE} WHERE name = $1 AND version <> $2 AND state <> 'dropped'");
    Sql::new(format!("SELECT 1 WHERE NOT EXISTS ({other})"))
        .bind(&version.name)
        .bind(version.version)
        .require_row()
}

pub(super) fn delete_position(tracking: &str, version: &ProjectionVersion) -> Sql {
    Sql::new(format!("DELETE FROM {tracking} WHERE application_name = $1")).bind(&version.consumer_name)
}

/// Returns the statements that make the views show the tables of `version`.
pub(super) fn replace_view(table: &str, version: u32) -> [Sql; 3] {
    let select = format!("SELECT * FROM {}", version_table(table, version));
    [
        Sql::new(format!("DROP VIEW IF EXISTS {table}")).postgres(replace_postgres_view(table, &select)),
        on_sqlite(format!("CREATE VIEW {table} AS {select}")),
        // SQLite notices only now that the table is missing, because the version was not set up.
        on_sqlite(format!("SELECT 1 FROM {table} LIMIT 0")),
    ]
}

pub(super) fn drop_view(table: &str) -> Sql {
    Sql::new(format!("DROP VIEW IF EXISTS {table}"))
}

/// Replaces a view on PostgreSQL. A view whose columns differ must be dropped; the new one gets its owner,
/// options and privileges.
fn replace_postgres_view(view: &str, select: &str) -> String {
    format!(
        "DO $do$ DECLARE owner name; options text; grants text; BEGIN \
         SELECT pg_get_userbyid(relowner), array_to_string(reloptions, ', '), \
         (SELECT string_agg(format('GRANT %s ON {view} TO %s%s', privilege_type, \
         CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
         CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), '; ') FROM aclexplode(relacl)) \
         INTO owner, options, grants FROM pg_class WHERE oid = to_regclass('{view}'); \
         BEGIN CREATE OR REPLACE VIEW {view} AS {select}; \
         EXCEPTION WHEN invalid_table_definition THEN \
         DROP VIEW {view}; CREATE VIEW {view} AS {select}; \
         IF owner <> current_user THEN EXECUTE format('ALTER VIEW {view} OWNER TO %I', owner); END IF; \
         IF grants IS NOT NULL THEN EXECUTE grants; END IF; END; \
         IF options IS NOT NULL THEN EXECUTE format('ALTER VIEW {view} SET (%s)', options); END IF; \
         END $do$"
    )
}

/// A statement for SQLite alone.
fn on_sqlite(text: String) -> Sql {
    Sql::new(text).postgres("SELECT 1")
}

/// A statement for PostgreSQL alone.
fn on_postgres(text: &'static str) -> Sql {
    Sql::new("SELECT 1").postgres(text)
}

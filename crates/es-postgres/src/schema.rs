//! Tables, their names and layouts: what stands in the database, and making what is missing.

use es_core::{ErrorKind, PersistenceError, Tracking};
use sqlx::{AssertSqlSafe, Row, SqlSafeStr, postgres::PgConnection};

use crate::{
    error,
    options::Ordering,
    statements::{AppendTables, EventsTable, Function, Lock},
};

/// How often creating is tried again when another process creates the same at the same time.
const CREATE_ATTEMPTS: usize = 5;

/// SQLSTATEs by which the server says that somebody else was faster: duplicate table, function and
/// object, a unique violation in a catalogue, "tuple concurrently updated".
const CREATED_ELSEWHERE: [&str; 7] = ["42P07", "42723", "42710", "23505", "XX000", "40P01", "40001"];

/// The name of a table (or function) in a schema:
/// - not empty, without a NUL character, which no identifier can hold;
/// - at most 63 bytes, which PostgreSQL would cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    schema: String,
    name: String,
}

impl TableName {
    pub(crate) fn new(schema: &str, name: String) -> Result<Self, PersistenceError> {
        check_identifier("schema", schema)?;
        check_identifier("table name", &name)?;
        Ok(Self { schema: schema.to_owned(), name })
    }

    /// Another name in the same schema.
    pub(crate) fn sibling(&self, name: String) -> Self {
        Self { schema: self.schema.clone(), name }
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The name as SQL, which nothing in it can break out of.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }
}

/// The name of a table of an application: `<application>_<what>` in lower case, or without an
/// application name `nameless`.
pub(crate) fn table_of(
    schema: &str,
    application_name: &str,
    what: &str,
    nameless: &str,
) -> Result<TableName, PersistenceError> {
    let name = match application_name {
        "" => nameless.to_owned(),
        application_name => format!("{}_{what}", application_name.to_lowercase()),
    };
    TableName::new(schema, name)
}

/// The two layouts of a tracking table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One row for each tracking record: version 9.1 of the Python library.
    RowPerRecord,
    /// One row for each application: version 9.5, and what is created here.
    RowPerApplication,
}

/// What a recorder wants to stand in the database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) events: Option<TableName>,
    /// Whether the events table has notification ids.
    pub(crate) notifications: bool,
    pub(crate) tracking: Option<TableName>,
}

/// What stands there.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) append: AppendTables,
    /// Whether the functions stand, and may be called.
    pub(crate) functions: bool,
    pub(crate) lock: Lock,
}

/// What may be created that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Create {
    TablesAndFunctions,
    /// For a recorder that is at work: tables that it had are not to be replaced by empty ones.
    Functions,
    Nothing,
}

/// Looks at what stands, and creates what is missing if that is allowed.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    wanted: &Wanted,
    create: Create,
    ordering: Ordering,
) -> Result<Standing, PersistenceError> {
    if create == Create::TablesAndFunctions {
        create_tables(connection, wanted).await?;
    }
    let layout = match &wanted.tracking {
        None => None,
        Some(table) => Some((table.clone(), tracking_layout(connection, table).await?)),
    };
    let Some(anchor) = wanted.events.as_ref().or(wanted.tracking.as_ref()).cloned() else {
        return Err(PersistenceError::internal("a recorder without a table"));
    };
    // Whoever inserts into a table with notification ids draws them, whether they are wanted or not.
    let notifications = wanted.events.is_some() && has_notification_ids(connection, &anchor).await?;
    let lock = lock_of(connection, &anchor, notifications, ordering).await?;
    if notifications {
        check_sequence(connection, &anchor, ordering).await?;
    }
    let sequence = if notifications { sequence_of(connection, &anchor).await? } else { None };
    let events = wanted.events.clone().map(|name| EventsTable { name, notifications, sequence });
    let append = AppendTables { anchor, events, tracking: layout };
    let mut functions = true;
    for function in [Some(append.group_function()), append.single_function()].into_iter().flatten() {
        let found = find_or_create_function(connection, &append.anchor, &function, create).await?;
        if !found && stands(connection, &function.name).await? {
            tracing::warn!(
                function = function.name.quoted(),
                "a function of this name is not ours, or its owner not the table's: it is not called"
            );
        }
        functions &= found;
    }
    if !functions {
        tracing::debug!(table = append.anchor.quoted(), "no append function: appends take three round trips");
    }
    Ok(Standing { append, functions, lock })
}

async fn create_tables(connection: &mut PgConnection, wanted: &Wanted) -> Result<(), PersistenceError> {
    for table in wanted.events.iter().chain(&wanted.tracking) {
        if exists(connection, table).await? {
            continue;
        }
        let quoted = table.quoted();
        let statements = if Some(table) == wanted.tracking.as_ref() {
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (application_name text, notification_id bigint, \
                 PRIMARY KEY (application_name)); \
                 INSERT INTO {quoted} (application_name, notification_id) VALUES ('{}', 1) \
                 ON CONFLICT DO NOTHING;",
                Tracking::RESERVED_NAME
            )
        } else if wanted.notifications {
            let index = quote_identifier(&index_name(table.name()));
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (originator_id uuid NOT NULL, \
                 originator_version bigint NOT NULL, topic text, state bytea, notification_id bigserial, \
                 PRIMARY KEY (originator_id, originator_version)); \
                 CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {quoted} (notification_id ASC);"
            )
        } else {
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (originator_id uuid NOT NULL, \
                 originator_version bigint NOT NULL, topic text, state bytea, \
                 PRIMARY KEY (originator_id, originator_version));"
            )
        };
        create(connection, table, &statements).await?;
    }
    Ok(())
}

/// The name of the index on notification ids, cut as the server would cut it.
fn index_name(table: &str) -> String {
    const SUFFIX: &str = "_notification_id_idx";
    let mut end = table.len().min(63 - SUFFIX.len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &table[..end])
}

/// Runs statements that create something, one process at a time.
async fn create(
    connection: &mut PgConnection,
    name: &TableName,
    statements: &str,
) -> Result<(), PersistenceError> {
    // The lock is for our own processes; the Python library does not know it, hence the attempts.
    let batch = format!(
        "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended({}, 0)); {statements} COMMIT",
        crate::statements::quote_literal(&name.quoted())
    );
    for attempt in 1.. {
        match run(connection, &batch).await {
            Ok(()) => break,
            Err(failed) => {
                run(connection, "ROLLBACK")
                    .await
                    .map_err(|error| error::from_statement("rolling back", error))?;
                if attempt < CREATE_ATTEMPTS && error::has_sqlstate(&failed, &CREATED_ELSEWHERE) {
                    continue;
                }
                return Err(error::from_statement(&format!("creating {}", name.quoted()), failed));
            }
        }
    }
    Ok(())
}

async fn find_or_create_function(
    connection: &mut PgConnection,
    table: &TableName,
    function: &Function,
    allowed: Create,
) -> Result<bool, PersistenceError> {
    if is_callable(connection, table, function).await? {
        return Ok(true);
    }
    if allowed == Create::Nothing {
        return Ok(false);
    }
    match create(connection, &function.name, &format!("{};", function.create())).await {
        Ok(()) => Ok(true),
        // A role that may not create functions appends without.
        Err(error) if error.kind() == ErrorKind::Programming => {
            is_callable(connection, table, function).await
        }
        // Somebody else created it meanwhile, again and again.
        Err(error) => match is_callable(connection, table, function).await {
            Ok(true) => Ok(true),
            _ => Err(error),
        },
    }
}

async fn exists(connection: &mut PgConnection, table: &TableName) -> Result<bool, PersistenceError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2)";
    let asking = sqlx::query(query).persistent(false).bind(table.schema()).bind(table.name());
    flag(connection, asking, table).await
}

/// Whether a function stands that may be called, and that can be believed: whoever may create things in
/// the schema can know its name beforehand, and make one that says yes and amen. So it has our body, and
/// is owned by somebody who could do to the table, or to us, what he likes without it.
async fn is_callable(
    connection: &mut PgConnection,
    table: &TableName,
    function: &Function,
) -> Result<bool, PersistenceError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc AS p \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
                 JOIN pg_catalog.pg_roles AS owner ON owner.oid = p.proowner \
                 WHERE n.nspname = $1 AND p.proname = $2 AND p.prosrc = $3 AND NOT p.prosecdef \
                 AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE') \
                 AND (owner.rolsuper OR owner.rolname = CURRENT_USER OR owner.oid = \
                 (SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = $4)))";
    let name = &function.name;
    let asking = sqlx::query(query).persistent(false).bind(name.schema()).bind(name.name());
    let asking = asking.bind(&function.body).bind(table.name());
    flag(connection, asking, name).await
}

/// Whether any function of this name stands.
async fn stands(connection: &mut PgConnection, function: &TableName) -> Result<bool, PersistenceError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc AS p \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
                 WHERE n.nspname = $1 AND p.proname = $2)";
    let asking = sqlx::query(query).persistent(false).bind(function.schema()).bind(function.name());
    flag(connection, asking, function).await
}

/// Which lock the role has the right to: PostgreSQL demands more for `EXCLUSIVE` than to insert.
async fn lock_of(
    connection: &mut PgConnection,
    events: &TableName,
    notifications: bool,
    ordering: Ordering,
) -> Result<Lock, PersistenceError> {
    if !exists(connection, events).await? {
        return Err(missing(events));
    }
    // Without notification ids there is no order to keep; the primary key alone settles conflicts.
    if !notifications || ordering == Ordering::Parallel {
        return Ok(Lock::None);
    }
    let query = "SELECT pg_catalog.has_table_privilege($1, 'UPDATE, DELETE, TRUNCATE')";
    let asking = sqlx::query(query).persistent(false).bind(events.quoted());
    Ok(if flag(connection, asking, events).await? { Lock::Exclusive } else { Lock::InsertOnly })
}

/// The layout that stands, by its primary key.
async fn tracking_layout(
    connection: &mut PgConnection,
    table: &TableName,
) -> Result<Layout, PersistenceError> {
    let query = "SELECT i.indnkeyatts::integer FROM pg_catalog.pg_index AS i \
                 JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND i.indisprimary";
    let asking = sqlx::query(query).persistent(false).bind(table.schema()).bind(table.name());
    let row = asking.fetch_optional(&mut *connection).await.map_err(|error| looking_at(table, error))?;
    let columns: Option<i32> = match row {
        None => None,
        Some(row) => Some(row.try_get(0).map_err(|error| looking_at(table, error))?),
    };
    match columns {
        Some(1) => Ok(Layout::RowPerApplication),
        Some(2) => Ok(Layout::RowPerRecord),
        Some(_) => Err(PersistenceError::programming(format!(
            "table {} has a primary key that no known tracking table has",
            table.quoted()
        ))),
        None if exists(connection, table).await? => Err(PersistenceError::programming(format!(
            "table {} has no primary key, which every tracking table has",
            table.quoted()
        ))),
        None => Err(missing(table)),
    }
}

/// The sequence that gives notification ids, quoted.
async fn sequence_of(
    connection: &mut PgConnection,
    events: &TableName,
) -> Result<Option<String>, PersistenceError> {
    let query = "SELECT pg_catalog.pg_get_serial_sequence($1, 'notification_id')";
    let asking = sqlx::query(query).persistent(false).bind(events.quoted());
    let row = asking.fetch_one(connection).await.map_err(|error| looking_at(events, error))?;
    row.try_get(0).map_err(|error| looking_at(events, error))
}

async fn has_notification_ids(
    connection: &mut PgConnection,
    events: &TableName,
) -> Result<bool, PersistenceError> {
    let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a \
                 JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid \
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = 'notification_id' \
                 AND NOT a.attisdropped)";
    let asking = sqlx::query(query).persistent(false).bind(events.schema()).bind(events.name());
    flag(connection, asking, events).await
}

/// Order needs ids that are drawn one by one, ascending: a session's cache breaks it under any lock.
/// The fence of readers also has to know that they are.
async fn check_sequence(
    connection: &mut PgConnection,
    events: &TableName,
    ordering: Ordering,
) -> Result<(), PersistenceError> {
    let query = "SELECT s.seqcache = 1 AND s.seqincrement > 0 AND NOT s.seqcycle AND s.seqmin >= 1 FROM pg_catalog.pg_sequence AS s \
                 WHERE s.seqrelid = pg_catalog.pg_get_serial_sequence($1, 'notification_id')::pg_catalog.regclass";
    let asking = sqlx::query(query).persistent(false).bind(events.quoted());
    let row = asking.fetch_optional(connection).await.map_err(|error| looking_at(events, error))?;
    let suitable: Option<bool> = match row {
        None => None,
        Some(row) => Some(row.try_get(0).map_err(|error| looking_at(events, error))?),
    };
    if suitable.unwrap_or(ordering == Ordering::TableLock) {
        return Ok(());
    }
    Err(PersistenceError::not_supported(format!(
        "notification ids of {} must come from a sequence that ascends from 1 or more, with CACHE 1 and NO CYCLE, and \
         with parallel ordering is the column's own",
        events.quoted()
    )))
}

type Asking<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

async fn flag(
    connection: &mut PgConnection,
    asking: Asking<'_>,
    about: &TableName,
) -> Result<bool, PersistenceError> {
    let row = asking.fetch_one(connection).await.map_err(|error| looking_at(about, error))?;
    row.try_get(0).map_err(|error| looking_at(about, error))
}

/// Runs statements that answer nothing.
pub(crate) async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements).into_sql_str()).execute(connection).await.map(drop)
}

fn looking_at(table: &TableName, error: sqlx::Error) -> PersistenceError {
    error::from_statement(&format!("looking at {}", table.quoted()), error)
}

fn missing(table: &TableName) -> PersistenceError {
    PersistenceError::programming(format!("table {} does not exist", table.quoted()))
}

fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn check_identifier(what: &str, name: &str) -> Result<(), PersistenceError> {
    const LONGEST: usize = 63;
    let flaw = match name {
        "" => "is empty".to_owned(),
        name if name.contains('\0') => "has a NUL character".to_owned(),
        name if name.len() > LONGEST => {
            format!("has {} bytes, more than the {LONGEST} of PostgreSQL", name.len())
        }
        _ => return Ok(()),
    };
    Err(PersistenceError::programming(format!("{what} {name:?} {flaw}")))
}

//! Sessions: their settings, their transactions, and the server process behind a connection.

use std::{
    fmt::Write as _,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, Row, SqlSafeStr,
    postgres::{PgConnection, PgRow},
};

use crate::{
    options::{DEFAULT_SCHEMA, PostgresOptions},
    quote::{quote_identifier, quote_literal},
};

/// Pins the search path to the system catalogue; a statement with its semicolon.
///
/// Unqualified names and operators are resolved by the search path, and a better match in another schema than
/// `pg_catalog` wins (CVE-2018-1058): a role that may create objects in `public` could run its code with the
/// privileges of the library's role. SQL that also runs in the caller's transactions, with the caller's path,
/// is qualified throughout.
pub(crate) const PIN_SEARCH_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp;";

/// Planner settings of the library's own statements. A plan is often made while a table is empty and a scan
/// is cheapest, and then kept: it must use the index. JIT compilation takes milliseconds for statements that
/// take microseconds.
const PLANNER: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The access of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

impl Access {
    const fn as_sql(self) -> &'static str {
        match self {
            Self::ReadOnly => " READ ONLY",
            Self::ReadWrite => "",
        }
    }
}

/// Returns the statements that begin a transaction of the library's own.
///
/// It is `READ COMMITTED` regardless of the role's default: a stricter one takes its snapshot before it has
/// the lock of an append, and would check the append against a state from before the wait. Behind a pooler in
/// transaction mode, the transaction also gets the settings that a session has otherwise.
pub(crate) fn begin(options: &PostgresOptions, access: Access) -> String {
    let mut begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED{};", access.as_sql());
    if options.transaction_pooler {
        let _ = write!(begin, " {PIN_SEARCH_PATH}");
        for (name, value) in PLANNER {
            let _ = write!(begin, " SET LOCAL {name} = {value};");
        }
        let _ = write!(begin, " SET LOCAL lock_timeout = {};", milliseconds(options.lock_timeout));
        begin.push_str(&idle_timeout(options.idle_in_transaction_session_timeout));
    }
    begin
}

/// Returns the statements that begin a transaction for the user's code, with the settings of the role. Names
/// without a schema are looked up in the datastore's schema first.
pub(crate) fn begin_for_user(options: &PostgresOptions, access: Access) -> String {
    let mut begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED{};", access.as_sql());
    if options.transaction_pooler {
        begin.push_str(&idle_timeout(options.idle_in_transaction_session_timeout));
    } else {
        for name in PLANNER.iter().map(|(name, _)| *name).chain(["search_path", "lock_timeout"]) {
            let _ = write!(begin, " SET LOCAL {name} TO DEFAULT;");
        }
    }
    // The default schema is in the search path of the role, unless the role's owner has decided otherwise.
    if options.schema != DEFAULT_SCHEMA {
        let schema = quote_literal(&format!("{}, ", quote_identifier(&options.schema)));
        let _ = write!(
            begin,
            " SELECT pg_catalog.set_config('search_path', {schema} OPERATOR(pg_catalog.||) \
             pg_catalog.current_setting('search_path'), true);"
        );
    }
    begin
}

/// Returns a timeout in milliseconds, rounded up, since 0 means no timeout to the server.
pub(crate) fn milliseconds(timeout: Duration) -> u128 {
    timeout.as_nanos().div_ceil(1_000_000)
}

/// Returns the statement that limits the pauses of a client within its transaction; none without a limit.
pub(crate) fn idle_timeout(timeout: Duration) -> String {
    match milliseconds(timeout) {
        0 => String::new(),
        idle => format!(" SET LOCAL idle_in_transaction_session_timeout = {idle};"),
    }
}

/// Returns the statements, in one message, that set up a session and identify its server process.
///
/// Network settings are set unless the server has its own. None of it is a startup option: poolers refuse
/// those.
fn set_up(options: &PostgresOptions) -> String {
    let mut set_up = PIN_SEARCH_PATH.replace(" LOCAL", "");
    for (name, value) in PLANNER {
        let _ = write!(set_up, " SET {name} = {value};");
    }
    let _ = write!(
        set_up,
        " SET lock_timeout = {}; SET default_transaction_isolation = 'read committed';",
        milliseconds(options.lock_timeout)
    );
    if !options.response_timeout.is_zero() {
        // The server detects a lost client as fast as the client detects a lost server.
        let milliseconds = i32::try_from(options.response_timeout.as_millis()).unwrap_or(i32::MAX);
        let part = |parts: i32| (milliseconds / 1_000 / parts).max(1);
        let _ = write!(
            set_up,
            " SELECT set_config(s.name, w.value, false) FROM (VALUES ('tcp_user_timeout', '{milliseconds}'), \
             ('tcp_keepalives_idle', '{}'), ('tcp_keepalives_interval', '{}'), ('tcp_keepalives_count', '3')) \
             AS w (name, value) JOIN pg_settings AS s ON s.name = w.name WHERE s.source = 'default';",
            part(2),
            part(6)
        );
    }
    let _ = write!(set_up, " SELECT pid, {STARTED} FROM pg_stat_activity WHERE pid = pg_backend_pid()");
    set_up
}

/// Runs statements without arguments, in one message.
pub(crate) async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements).into_sql_str()).execute(connection).await.map(drop)
}

/// The start of a server process in microseconds, since process ids are reused.
pub(super) const STARTED: &str = "(extract(epoch FROM backend_start) * 1000000)::bigint";

/// A server process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(super) pid: i32,
    pub(super) started: i64,
}

/// A connection and its server process.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    /// The server process; none behind a pooler in transaction mode, where each transaction may have another.
    pub(crate) backend: Option<Backend>,
}

impl Session {
    /// Sets up the session of a new connection.
    pub(crate) async fn start(
        mut connection: PgConnection,
        options: &PostgresOptions,
    ) -> Result<Self, sqlx::Error> {
        let set_up = AssertSqlSafe(set_up(options)).into_sql_str();
        let rows: Vec<PgRow> = sqlx::raw_sql(set_up).fetch_all(&mut connection).await?;
        // The rows of the settings come first.
        let backend = match rows.last().filter(|row| row.len() == 2) {
            // Not every role may see the start of the process.
            Some(row) => match (row.try_get(0)?, row.try_get(1)?) {
                (Some(pid), Some(started)) => Some(Backend { pid, started }),
                _ => None,
            },
            None => None,
        };
        Ok(Self { connection, backend })
    }

    /// A connection without a server process of its own.
    pub(crate) fn pooled(connection: PgConnection) -> Self {
        Self { connection, backend: None }
    }

    pub(crate) fn into_connection(self) -> PgConnection {
        self.connection
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

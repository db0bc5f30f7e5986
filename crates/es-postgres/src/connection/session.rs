//! Sessions of the server, and what to make of one that falls silent.
//!
//! A network that drops what it is given tells nobody: neither side learns that the other is gone, and
//! an answer would be waited for without end. Nor does waiting long mean that anything is wrong, since
//! locks may be held for long. So while no answer comes, the server is asked on another connection
//! whether it is still at work on this one.

use std::{
    fmt::Write as _,
    io,
    ops::{Deref, DerefMut},
    pin::pin,
    time::Duration,
};

use futures_util::future::{Either, select};
use sqlx::{
    AssertSqlSafe, Row, SqlSafeStr,
    postgres::{PgConnection, PgRow},
};
use tokio::time::timeout;

use crate::options::PostgresOptions;

/// How long at most an answer may still be on its way after the server has said that it is done.
const GRACE: Duration = Duration::from_secs(1);

/// Pins the search path to the system catalogue, as a statement with its semicolon.
///
/// A name or an operator that is not qualified is looked up in the search path, and a better match in another
/// schema than `pg_catalog` wins (CVE-2018-1058). A role that may create objects in `public` could so run its
/// code with the rights of the library's role. SQL that also runs in transactions of the caller's, where the
/// path is the caller's, is qualified throughout.
pub(crate) const PIN_SEARCH_PATH: &str = "SET LOCAL search_path = pg_catalog, pg_temp;";

/// Planner settings of the library's own statements. Plans are made once, often while a table is empty and
/// its statistics say that a scan is cheapest; a plan that is kept must use the index. Compilation (JIT) of a
/// statement that takes microseconds takes milliseconds.
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

/// Begins a transaction of the library's own, as statements with their semicolons.
///
/// It is `READ COMMITTED` whatever the default of the role: a stricter one takes its snapshot before it has the
/// lock of an append, and would check the append against a state from before the wait. Behind a pooler in
/// transaction mode, the transaction also gets the settings that a session has otherwise.
pub(crate) fn begin(options: &PostgresOptions, access: Access) -> String {
    let access = match access {
        Access::ReadOnly => " READ ONLY",
        Access::ReadWrite => "",
    };
    let mut begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED{access};");
    if options.transaction_pooler {
        let _ = write!(begin, " {PIN_SEARCH_PATH}");
        for (name, value) in PLANNER {
            let _ = write!(begin, " SET LOCAL {name} = {value};");
        }
        let _ = write!(begin, " SET LOCAL lock_timeout = {};", milliseconds(options.lock_timeout));
        begin.push_str(&idle_timeout(options));
    }
    begin
}

/// Begins a transaction that is handed to code of the user's: with the settings of the user's role.
pub(crate) fn begin_for_user(options: &PostgresOptions) -> String {
    let mut begin = "BEGIN ISOLATION LEVEL READ COMMITTED;".to_owned();
    if options.transaction_pooler {
        begin.push_str(&idle_timeout(options));
    } else {
        for name in PLANNER.iter().map(|(name, _)| *name).chain(["search_path", "lock_timeout"]) {
            let _ = write!(begin, " SET LOCAL {name} TO DEFAULT;");
        }
    }
    begin
}

/// A timeout as the server takes it: in milliseconds, rounded up, since 0 means no timeout.
pub(crate) fn milliseconds(timeout: Duration) -> u128 {
    timeout.as_nanos().div_ceil(1_000_000)
}

fn idle_timeout(options: &PostgresOptions) -> String {
    match milliseconds(options.idle_in_transaction_session_timeout) {
        0 => String::new(),
        idle => format!(" SET LOCAL idle_in_transaction_session_timeout = {idle};"),
    }
}

/// Sets up a session and identifies its server process, in one message.
///
/// Network settings are set unless the server has its own. None of it is a startup option, which poolers
/// refuse.
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
        // A lost client is noticed as soon as the client notices a lost server.
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

/// When a server process was started, in microseconds: its process id is another's some day.
const STARTED: &str = "(extract(epoch FROM backend_start) * 1000000)::bigint";

/// A server process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pid: i32,
    started: i64,
}

/// A connection, and the server process at its other end.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    /// None behind a pooler in transaction mode, where each transaction has another.
    pub(crate) backend: Option<Backend>,
}

impl Session {
    /// Sets up a session of a new connection's own.
    pub(crate) async fn start(
        mut connection: PgConnection,
        options: &PostgresOptions,
    ) -> Result<Self, sqlx::Error> {
        let set_up = AssertSqlSafe(set_up(options)).into_sql_str();
        let rows: Vec<PgRow> = sqlx::raw_sql(set_up).fetch_all(&mut connection).await?;
        // The rows of the settings come first.
        let backend = match rows.last().filter(|row| row.len() == 2) {
            // The start of the process is not shown to every role.
            Some(row) => match (row.try_get(0)?, row.try_get(1)?) {
                (Some(pid), Some(started)) => Some(Backend { pid, started }),
                _ => None,
            },
            None => None,
        };
        Ok(Self { connection, backend })
    }

    /// A connection that is not known to have a server process of its own.
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

/// What the server says of a process that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It is at work, or nothing can be said.
    AtWork,
    /// It is gone, or done, or nobody answers at all.
    Lost,
}

/// Waits for an answer, for as long as `look`, asked each time that `patience` is over, says that the
/// server is at work on it.
///
/// # Errors
/// When no answer will come.
///
/// # Cancel safety
/// As the answer's.
pub(crate) async fn answered<T, L: Future<Output = Silence>>(
    answer: impl Future<Output = T>,
    patience: Duration,
    look: impl Fn() -> L,
) -> Result<T, sqlx::Error> {
    let mut answer = pin!(answer);
    loop {
        if let Ok(answer) = timeout(patience, &mut answer).await {
            return Ok(answer);
        }
        let silence = match select(&mut answer, pin!(look())).await {
            Either::Left((answer, _)) => return Ok(answer),
            Either::Right((silence, _)) => silence,
        };
        if silence == Silence::Lost {
            return timeout(GRACE.min(patience), answer).await.map_err(|_| silent(patience));
        }
    }
}

fn silent(patience: Duration) -> sqlx::Error {
    let message = format!("no answer came within {} s, and none will come", patience.as_secs_f64());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// Asks on a connection what a server process does. One that waits for bytes from us, although we have
/// sent them all, is ended: it must not hold its locks, nor act on what arrives later. Since one that is
/// given several statements also waits between them, it must have done so for half of `patience`.
pub(crate) async fn look_at(
    connection: &mut PgConnection,
    backend: Backend,
    patience: Duration,
) -> Result<Silence, sqlx::Error> {
    let query = format!(
        "SELECT CASE WHEN (state LIKE 'idle%' OR wait_event = 'ClientRead') \
         AND clock_timestamp() - state_change > make_interval(secs => $3) \
         THEN pg_terminate_backend(pid) ELSE false END \
         FROM pg_stat_activity WHERE pid = $1 AND {STARTED} = $2"
    );
    let query = AssertSqlSafe(query).into_sql_str();
    let asking = sqlx::query(query).persistent(false).bind(backend.pid).bind(backend.started);
    let asking = asking.bind(patience.as_secs_f64() / 2.0);
    let Some(row) = asking.fetch_optional(connection).await? else { return Ok(Silence::Lost) };
    let is_ended: Option<bool> = row.try_get(0)?;
    Ok(if is_ended == Some(true) { Silence::Lost } else { Silence::AtWork })
}

//! Sessions of the server, and what to make of one that falls silent.
//!
//! A network that drops what it is given tells nobody: neither side learns that the other is gone, and
//! an answer would be waited for without end. Nor does waiting long mean that anything is wrong, since
//! locks may be held for long. So while no answer comes, the server is asked on another connection
//! whether it is still at work on this one.

use std::{
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

/// How long at most an answer may still be on its way after the server has said that it is done.
const GRACE: Duration = Duration::from_secs(1);

/// Sets up a session, and says how the server knows it.
///
/// Transactions are `READ COMMITTED` where the role's or the database's default is another. A stricter
/// one takes its snapshot before it has the table's lock, and would check an append against what stood
/// before it waited. What the server is told of the network it is told unless somebody else did. None of
/// it is a startup option, which poolers refuse.
fn set_up(answer_timeout: Duration) -> String {
    let mut settings = "('default_transaction_isolation', 'read committed')".to_owned();
    if !answer_timeout.is_zero() {
        // A client that is gone is noticed as soon as it notices a server that is gone.
        let milliseconds = i32::try_from(answer_timeout.as_millis()).unwrap_or(i32::MAX);
        let part = |parts: i32| (milliseconds / 1_000 / parts).max(1);
        settings.push_str(&format!(
            ", ('tcp_user_timeout', '{milliseconds}'), ('tcp_keepalives_idle', '{}'), \
             ('tcp_keepalives_interval', '{}'), ('tcp_keepalives_count', '3')",
            part(2),
            part(6)
        ));
    }
    format!(
        "WITH told AS (SELECT pg_catalog.set_config(s.name, w.value, false) \
         FROM (VALUES {settings}) AS w (name, value) JOIN pg_catalog.pg_settings AS s ON s.name = w.name \
         WHERE s.setting <> w.value AND (s.source = 'default' OR s.name = 'default_transaction_isolation')) \
         SELECT pid, {STARTED}, (SELECT count(*) FROM told) FROM pg_catalog.pg_stat_activity \
         WHERE pid = pg_catalog.pg_backend_pid()"
    )
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
        answer_timeout: Duration,
    ) -> Result<Self, sqlx::Error> {
        let set_up = AssertSqlSafe(set_up(answer_timeout)).into_sql_str();
        let row: Option<PgRow> =
            sqlx::query(set_up).persistent(false).fetch_optional(&mut connection).await?;
        let backend = match row {
            // It tells the time of its start to whom it may concern.
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
         AND pg_catalog.clock_timestamp() - state_change > pg_catalog.make_interval(secs => $3) \
         THEN pg_catalog.pg_terminate_backend(pid) ELSE false END \
         FROM pg_catalog.pg_stat_activity WHERE pid = $1 AND {STARTED} = $2"
    );
    let query = AssertSqlSafe(query).into_sql_str();
    let asking = sqlx::query(query).persistent(false).bind(backend.pid).bind(backend.started);
    let asking = asking.bind(patience.as_secs_f64() / 2.0);
    let Some(row) = asking.fetch_optional(connection).await? else { return Ok(Silence::Lost) };
    let is_ended: Option<bool> = row.try_get(0)?;
    Ok(if is_ended == Some(true) { Silence::Lost } else { Silence::AtWork })
}

//! Liveness checks of server processes that do not answer.
//!
//! A network that drops packets informs neither side, so an answer could be awaited forever. A long wait
//! alone is no sign of a failure: locks may be held for long. Therefore, while no answer comes, another
//! connection queries the server for the state of the process.

use std::{io, pin::pin, time::Duration};

use futures_util::future::{Either, select};
use sqlx::{AssertSqlSafe, Row, SqlSafeStr, postgres::PgConnection};
use tokio::time::timeout;

use super::session::{Backend, STARTED};

/// The time that an answer may still be in transit after the server has reported the process as done.
const GRACE: Duration = Duration::from_secs(1);

/// The state of a server process that has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendState {
    /// It is working, or its state is not known.
    Working,
    /// It has ended or is done, or the server does not answer.
    Lost,
}

/// Waits for an answer. Each time that `interval` has passed, `check` is called; the wait continues while it
/// returns [`Working`](BackendState::Working).
///
/// # Errors
/// A timeout if no answer will come.
pub(crate) async fn with_liveness_check<T, C: Future<Output = BackendState>>(
    answer: impl Future<Output = T>,
    interval: Duration,
    check: impl Fn() -> C,
) -> Result<T, sqlx::Error> {
    let mut answer = pin!(answer);
    loop {
        if let Ok(answer) = timeout(interval, &mut answer).await {
            return Ok(answer);
        }
        let state = match select(&mut answer, pin!(check())).await {
            Either::Left((answer, _)) => return Ok(answer),
            Either::Right((state, _)) => state,
        };
        if state == BackendState::Lost {
            return timeout(GRACE.min(interval), answer).await.map_err(|_| no_answer(interval));
        }
    }
}

fn no_answer(interval: Duration) -> sqlx::Error {
    let message = format!("the server did not answer within {} s, and will not", interval.as_secs_f64());
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, message))
}

/// Asks on another connection for the state of a server process.
///
/// A process that waits for bytes from the client, although all were sent, is terminated, so that it neither
/// keeps its locks nor acts on what arrives later. A process that receives several statements also waits
/// between them, so it must have waited for half of `idle_time`.
pub(crate) async fn check_backend(
    connection: &mut PgConnection,
    backend: Backend,
    idle_time: Duration,
) -> Result<BackendState, sqlx::Error> {
    let query = format!(
        "SELECT CASE WHEN (state LIKE 'idle%' OR wait_event = 'ClientRead') \
         AND clock_timestamp() - state_change > make_interval(secs => $3) \
         THEN pg_terminate_backend(pid) ELSE false END \
         FROM pg_stat_activity WHERE pid = $1 AND {STARTED} = $2"
    );
    let query = sqlx::query(AssertSqlSafe(query).into_sql_str()).persistent(false);
    let query = query.bind(backend.pid).bind(backend.started).bind(idle_time.as_secs_f64() / 2.0);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(BackendState::Lost) };
    let is_terminated: Option<bool> = row.try_get(0)?;
    Ok(if is_terminated == Some(true) { BackendState::Lost } else { BackendState::Working })
}

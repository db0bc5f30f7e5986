//! Readers of the views, which verify what they see.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use es_sqlite::rusqlite::{Connection, OpenFlags};
use sqlx::{Acquire, AssertSqlSafe, Executor, PgConnection};
use tokio::{sync::watch, time::sleep};

use crate::test_database::{TestDatabase, connect};

/// The rows that a reader sees, by version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: i64,
    rows: i64,
    total: i64,
    /// The notifications of the log up to the last one that is seen.
    logged: i64,
    sums_version: Option<i64>,
    sums_rows: Option<i64>,
    sums_total: Option<i64>,
}

type Columns = (i64, i64, i64, i64, Option<i64>, Option<i64>, Option<i64>);

impl From<Columns> for Seen {
    fn from(columns: Columns) -> Self {
        let (version, rows, total, logged, sums_version, sums_rows, sums_total) = columns;
        Self { version, rows, total, logged, sums_version, sums_rows, sums_total }
    }
}

enum Reader {
    Sqlite(Connection),
    Postgres(PgConnection),
}

/// Reads twice in each transaction until the stop signal.
pub(super) async fn read(
    database: &TestDatabase,
    mut random: fastrand::Rng,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut reader = Reader::open(database).await?;
    while !*stop.borrow() {
        let pause = Duration::from_millis(random.u64(0..20));
        let (first, second) = reader.read_twice(random.bool(), pause).await?;
        for seen in [&first, &second] {
            verify(seen).with_context(|| format!("a reader sees {seen:?}"))?;
        }
        // The rows are empty after a reset.
        if let ([first], [second]) = (&*first, &*second) {
            ensure!(first.version == second.version, "a transaction reads {first:?}, and then {second:?}");
        }
    }
    Ok(())
}

/// Verifies the rows that one statement has read of both views and of the log.
fn verify(seen: &[Seen]) -> Result<()> {
    let Seen { version, rows, total, logged, sums_version, sums_rows, sums_total } = match seen {
        [] => return Ok(()),
        [seen] => seen,
        _ => bail!("there are rows of several versions"),
    };
    ensure!(rows == logged, "{rows} rows are projected of {logged} notifications");
    ensure!(*sums_version == Some(*version), "one view shows version {version}, the other {sums_version:?}");
    ensure!((*sums_rows, *sums_total) == (Some(*rows), Some(*total)), "the sums are of other rows");
    Ok(())
}

impl Reader {
    async fn open(database: &TestDatabase) -> Result<Self> {
        Ok(match database {
            TestDatabase::Sqlite(path) => {
                let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                connection.busy_timeout(Duration::from_secs(30))?;
                Self::Sqlite(connection)
            }
            TestDatabase::Postgres { schema, .. } => {
                let mut connection = connect().await?;
                connection.execute(AssertSqlSafe(format!("SET search_path TO \"{schema}\""))).await?;
                Self::Postgres(connection)
            }
        })
    }

    /// Reads in one transaction, with a pause in between.
    async fn read_twice(&mut self, is_repeatable: bool, pause: Duration) -> Result<(Vec<Seen>, Vec<Seen>)> {
        match self {
            Self::Sqlite(connection) => {
                let transaction = connection.transaction()?;
                let first = select(&transaction)?;
                sleep(pause).await;
                let second = select(&transaction)?;
                ensure!(first == second, "a transaction reads {first:?}, and then {second:?}");
                Ok((first, second))
            }
            Self::Postgres(connection) => {
                let mut transaction = connection.begin().await?;
                if is_repeatable {
                    transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
                }
                let query = query("faults_events", "notification_id");
                let read = || sqlx::query_as::<_, Columns>(AssertSqlSafe(query.clone())).persistent(false);
                let first = read().fetch_all(&mut *transaction).await?;
                sleep(pause).await;
                let second = read().fetch_all(&mut *transaction).await?;
                transaction.commit().await?;
                let seen = |rows: Vec<Columns>| rows.into_iter().map(Seen::from).collect();
                Ok((seen(first), seen(second)))
            }
        }
    }
}

fn select(connection: &Connection) -> Result<Vec<Seen>> {
    let mut select = connection.prepare_cached(&query("stored_events", "rowid"))?;
    let rows = select.query_map((), |row| Columns::try_from(row))?;
    Ok(rows.map(|row| row.map(Seen::from)).collect::<Result<_, _>>()?)
}

fn query(events: &str, id: &str) -> String {
    format!(
        "SELECT version, COUNT(*) AS rows, CAST(SUM(notification) AS BIGINT) AS total, \
         (SELECT COUNT(*) FROM {events} WHERE {id} <= (SELECT MAX(notification) FROM numbers)) AS logged, \
         (SELECT MIN(version) FROM sums) AS sums_version, \
         (SELECT CAST(SUM(notifications) AS BIGINT) FROM sums) AS sums_rows, \
         (SELECT CAST(SUM(total) AS BIGINT) FROM sums) AS sums_total \
         FROM numbers GROUP BY version"
    )
}

#[cfg(test)]
mod tests {
    use super::{Seen, verify};

    #[test]
    fn mixtures_and_missing_rows_are_found() {
        let seen = Seen {
            version: 2,
            rows: 3,
            total: 6,
            logged: 3,
            sums_version: Some(2),
            sums_rows: Some(3),
            sums_total: Some(6),
        };
        assert!(verify(&[]).is_ok() && verify(std::slice::from_ref(&seen)).is_ok());
        for wrong in [
            Seen { logged: 4, ..seen.clone() },
            Seen { sums_version: Some(1), ..seen.clone() },
            Seen { sums_version: None, ..seen.clone() },
            Seen { sums_rows: Some(2), ..seen.clone() },
            Seen { sums_total: Some(7), ..seen.clone() },
        ] {
            assert!(verify(std::slice::from_ref(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(verify(&[seen.clone(), Seen { version: 1, ..seen }]).is_err());
    }
}

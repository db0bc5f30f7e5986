//! evento on SQLite and PostgreSQL.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use evento::cursor::{Args, ReadResult};
use evento::migrator::{Migrate, Plan};
use evento::{Event, Executor, RoutingKey, WriteError};
use peer_adapter::{Datastore, Events, Peer, datastore, fail, serve};
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use ulid::Ulid;

const ACCOUNT: &str = "bank/Account";
/// Events of an aggregate per read.
const PAGE: u16 = 1_000;

#[tokio::main]
async fn main() -> Result<()> {
    let error = match datastore()? {
        Datastore::Sqlite { path } => match open_sqlite(&path).await {
            Ok(store) => return serve(Store(store), "journal_mode=wal, synchronous=FULL").await,
            Err(error) => error,
        },
        Datastore::Postgres { schema } => match open_postgres(&schema).await {
            Ok(store) => return serve(Store(store), "the server's durability").await,
            Err(error) => error,
        },
    };
    fail(&error)
}

async fn open_sqlite(path: &str) -> Result<evento::Sqlite> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().connect_with(options).await?;
    evento::sql_migrator::new::<sqlx::Sqlite>()?.run(&mut *pool.acquire().await?, &Plan::apply_all()).await?;
    Ok(pool.into())
}

async fn open_postgres(schema: &str) -> Result<evento::Postgres> {
    let pool = PgPool::connect(&Datastore::postgres_url(schema)?).await?;
    evento::sql_migrator::new::<sqlx::Postgres>()?
        .run(&mut *pool.acquire().await?, &Plan::apply_all())
        .await?;
    Ok(pool.into())
}

struct Store<E>(E);

impl<E: Executor> Store<E> {
    async fn of_account(&self, account: &str, args: Args) -> Result<ReadResult<Event>> {
        Ok(self.0.read_by_aggregator(ACCOUNT.into(), id(account), args).await?)
    }
}

impl<E: Executor> Peer for Store<E> {
    async fn append(&self, events: Events) -> Result<bool> {
        let Events { aggregate, first, states } = events;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut written = Vec::with_capacity(states.len());
        for (version, state) in (i32::try_from(first)?..).zip(states) {
            written.push(event(&aggregate, version, state, now));
        }
        match self.0.write(written).await {
            Ok(()) => Ok(true),
            Err(WriteError::InvalidOriginalVersion) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn last_version(&self, aggregate: &str) -> Result<i64> {
        let last = self.of_account(aggregate, Args::backward(1, None)).await?;
        Ok(last.edges.last().map_or(0, |edge| i64::from(edge.node.version)))
    }

    async fn load(&self, aggregate: &str) -> Result<usize> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.of_account(aggregate, Args::forward(PAGE, after)).await?;
            count += page.edges.len();
            if !page.page_info.has_next_page {
                return Ok(count);
            }
            after = page.page_info.end_cursor;
        }
    }

    async fn page(&self, events: usize, page: usize) -> Result<usize> {
        let (mut count, mut after) = (0, None);
        while count < events {
            let size = u16::try_from(page.min(events - count))?;
            let types = HashSet::from([ACCOUNT.to_owned()]);
            let page = self.0.read(types, RoutingKey::All, Args::forward(size, after)).await?;
            count += page.edges.len();
            if !page.page_info.has_next_page {
                break;
            }
            after = page.page_info.end_cursor;
        }
        Ok(count)
    }
}

/// Returns the id of an aggregate. evento's ids are ULIDs, which have room for 26 letters and digits.
fn id(account: &str) -> String {
    account.chars().filter(char::is_ascii_alphanumeric).take(26).collect()
}

fn event(account: &str, version: i32, state: String, now: Duration) -> Event {
    Event {
        id: Ulid::new(),
        aggregator_id: id(account),
        aggregator_type: ACCOUNT.into(),
        version,
        name: "Credited".into(),
        routing_key: None,
        data: state.into_bytes(),
        metadata: Vec::new(),
        timestamp: now.as_secs(),
        timestamp_subsec: now.subsec_millis(),
    }
}

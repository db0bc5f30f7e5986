//! cqrs-es with its repositories for SQLite (sqlite-es) and PostgreSQL (postgres-es).

use anyhow::{Result, bail};
use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, PersistenceError, SerializedEvent};
use cqrs_es::{Aggregate, DomainEvent};
use peer_adapter::{Datastore, Events, Peer, datastore, fail, serve};
use postgres_es::{PostgresEventRepository, default_postgress_pool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlite_es::SqliteEventRepository;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

/// The tables as the libraries' own scripts create them.
const POSTGRES: &str =
    "CREATE TABLE IF NOT EXISTS events (aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    sequence bigint CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL,
    payload json NOT NULL, metadata json NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, sequence))";
const SQLITE: &str = "CREATE TABLE IF NOT EXISTS events (aggregate_type text NOT NULL, aggregate_id text NOT NULL,
    sequence integer CHECK (sequence >= 0) NOT NULL, event_type text NOT NULL, event_version text NOT NULL,
    payload text NOT NULL, metadata text NOT NULL, PRIMARY KEY (aggregate_type, aggregate_id, sequence)) STRICT";

#[tokio::main]
async fn main() -> Result<()> {
    let outcome = match datastore()? {
        Datastore::Sqlite { path } => match open_sqlite(&path).await {
            Ok(repository) => {
                return serve(Repository(repository), "journal_mode=wal, synchronous=FULL").await;
            }
            Err(error) => error,
        },
        Datastore::Postgres { schema } => match open_postgres(&schema).await {
            Ok(repository) => return serve(Repository(repository), "the server's durability").await,
            Err(error) => error,
        },
    };
    fail(&outcome)
}

/// Opens the database with the settings of the library's own pool, except for `synchronous`, which is NORMAL
/// there: a commit could be lost.
async fn open_sqlite(path: &str) -> Result<SqliteEventRepository> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    let pool = SqlitePoolOptions::new().max_connections(10).connect_with(options).await?;
    sqlx::query(SQLITE).execute(&pool).await?;
    Ok(SqliteEventRepository::new(pool))
}

async fn open_postgres(schema: &str) -> Result<PostgresEventRepository> {
    let pool = default_postgress_pool(&Datastore::postgres_url(schema)?).await;
    sqlx::query(POSTGRES).execute(&pool).await?;
    Ok(PostgresEventRepository::new(pool))
}

struct Repository<R>(R);

impl<R: PersistedEventRepository + 'static> Peer for Repository<R> {
    async fn append(&self, events: Events) -> Result<bool> {
        let Events { aggregate, first, states } = events;
        let mut serialized = Vec::with_capacity(states.len());
        for (sequence, state) in (usize::try_from(first)?..).zip(states) {
            serialized.push(SerializedEvent::new(
                aggregate.clone(),
                sequence,
                Account::TYPE.into(),
                "Credited".into(),
                "1.0".into(),
                Value::String(state),
                json!({}),
            ));
        }
        match self.0.persist::<Account>(&serialized, None).await {
            Ok(()) => Ok(true),
            Err(PersistenceError::OptimisticLockError) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads the aggregate: the library offers no other way.
    async fn last_version(&self, aggregate: &str) -> Result<i64> {
        let events = self.0.get_events::<Account>(aggregate).await?;
        Ok(events.last().map_or(Ok(0), |event| i64::try_from(event.sequence))?)
    }

    async fn load(&self, aggregate: &str) -> Result<usize> {
        Ok(self.0.get_events::<Account>(aggregate).await?.len())
    }

    async fn page(&self, _: usize, _: usize) -> Result<usize> {
        bail!("cqrs-es has no total order of events to page through")
    }
}

/// The aggregate of the repositories, which use its name only.
#[derive(Default, Deserialize, Serialize)]
struct Account;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Credited(String);

impl DomainEvent for Credited {
    fn event_type(&self) -> String {
        "Credited".into()
    }

    fn event_version(&self) -> String {
        "1.0".into()
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "Account";
    type Command = ();
    type Event = Credited;
    type Error = std::convert::Infallible;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, _: Credited) {}
}

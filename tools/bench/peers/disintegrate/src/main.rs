//! disintegrate on PostgreSQL.

use anyhow::{Result, bail};
use disintegrate::serde::json::Json;
use disintegrate::{Event, EventStore, StreamItem, StreamQuery, query};
use disintegrate_postgres::{Error, PgEventId, PgEventStore};
use futures::TryStreamExt;
use peer_adapter::{Datastore, Events, Peer, datastore, fail, serve};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[tokio::main]
async fn main() -> Result<()> {
    match open().await {
        Ok(store) => serve(Store(store), "the server's durability").await,
        Err(error) => fail(&error),
    }
}

async fn open() -> Result<PgEventStore<Credited, Json<Credited>>> {
    let Datastore::Postgres { schema } = datastore()? else { bail!("disintegrate stores in PostgreSQL") };
    let pool = PgPool::connect(&Datastore::postgres_url(&schema)?).await?;
    Ok(PgEventStore::try_new(pool, Json::default()).await?)
}

#[derive(Clone, Debug, Deserialize, Event, PartialEq, Eq, Serialize)]
enum Credited {
    Credited {
        #[id]
        account: String,
        version: i64,
        state: String,
    },
}

struct Store(PgEventStore<Credited, Json<Credited>>);

impl Store {
    /// Returns the number of events, the version of the last one, and its id.
    async fn read(&self, query: &StreamQuery<PgEventId, Credited>) -> Result<(usize, i64, PgEventId)> {
        let mut events = self.0.stream(query);
        let (mut count, mut last, mut id) = (0, 0, 0);
        while let Some(item) = events.try_next().await? {
            if let StreamItem::Event(event) = item {
                let Credited::Credited { version, .. } = &*event;
                (count, last, id) = (count + 1, *version, event.id());
            }
        }
        Ok((count, last, id))
    }
}

fn of_account(account: &String) -> StreamQuery<PgEventId, Credited> {
    query!(Credited; account == account)
}

impl Peer for Store {
    /// Appends with a decision that is valid if the account has no event after the previous one.
    async fn append(&self, events: Events) -> Result<bool> {
        let Events { aggregate, first, states } = events;
        let query = of_account(&aggregate);
        let known = match first {
            1 => 0,
            _ => match self.read(&query).await? {
                (_, last, id) if last + 1 == first => id,
                _ => return Ok(false),
            },
        };
        let credited = (first..)
            .zip(states)
            .map(|(version, state)| Credited::Credited { account: aggregate.clone(), version, state })
            .collect();
        match self.0.append(credited, query, known).await {
            Ok(_) => Ok(true),
            Err(Error::Concurrency) => Ok(false),
            // A serialization failure that the library passes on unchanged.
            Err(Error::Database(sqlx::Error::Database(error)))
                if error.code().as_deref() == Some("40001") =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the account's events: the library offers no other way.
    async fn last_version(&self, aggregate: &str) -> Result<i64> {
        Ok(self.read(&of_account(&aggregate.to_owned())).await?.1)
    }

    async fn load(&self, aggregate: &str) -> Result<usize> {
        Ok(self.read(&of_account(&aggregate.to_owned())).await?.0)
    }

    /// Streams the events: the library has no pages.
    async fn page(&self, events: usize, _: usize) -> Result<usize> {
        let (count, ..) = self.read(&query!(Credited)).await?;
        Ok(count.min(events))
    }
}

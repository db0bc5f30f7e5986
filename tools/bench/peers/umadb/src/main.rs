//! UmaDB: its server runs in this process, and its client connects to it over a local connection, as in a
//! program.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use peer_adapter::{Datastore, Events, Peer, datastore, fail, serve};
use tokio::sync::oneshot;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{DcbAppendCondition, DcbError, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem};
use umadb_server::{ServerOptions, StorageOptions, start_server_with_options};

#[tokio::main]
async fn main() -> Result<()> {
    // Dropping it stops the server.
    let (_running, stop) = oneshot::channel();
    match open(stop).await {
        Ok(client) => serve(Store(client), "UmaDB's defaults: each commit is flushed").await,
        Err(error) => fail(&error),
    }
}

async fn open(stop: oneshot::Receiver<()>) -> Result<AsyncUmaDbClient> {
    let Datastore::Sqlite { path } = datastore()? else { bail!("UmaDB stores in a file of its own") };
    let listen_addr = format!("127.0.0.1:{}", free_port()?);
    let client = UmaDbClient::new(format!("http://{listen_addr}"));
    let storage = StorageOptions::default().db_path(path);
    let options = ServerOptions { listen_addr, tls: None, api_key: None, storage };
    // The server's future cannot be sent to another thread.
    std::thread::spawn(move || -> Result<()> {
        let server = start_server_with_options(options, stop);
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(server)
            .map_err(|error| anyhow!("{error}"))
    });
    for _ in 0..100 {
        if let Ok(client) = client.connect_async().await {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.connect_async().await.context("its server does not answer")
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

struct Store(AsyncUmaDbClient);

impl Store {
    /// Returns the number of events of an aggregate, and the position of the last one.
    async fn read(&self, aggregate: &str) -> Result<(usize, Option<u64>)> {
        let (events, _) = self.0.read_with_head(Some(of_account(aggregate)), None, false, None).await?;
        Ok((events.len(), events.last().map(|event| event.position)))
    }

    /// Returns the version of the last event, and its position.
    async fn last(&self, aggregate: &str) -> Result<(i64, Option<u64>)> {
        let (events, _) = self.0.read_with_head(Some(of_account(aggregate)), None, true, Some(1)).await?;
        let Some(last) = events.first() else { return Ok((0, None)) };
        let version = last.event.event_type.parse().context("the type of an event is its version here")?;
        Ok((version, Some(last.position)))
    }
}

fn of_account(aggregate: &str) -> DcbQuery {
    DcbQuery::new().item(DcbQueryItem::new().tags([aggregate]))
}

impl Peer for Store {
    /// Appends on the condition that the aggregate has no event after the previous one.
    async fn append(&self, events: Events) -> Result<bool> {
        let Events { aggregate, first, states } = events;
        let after = match first {
            1 => None,
            _ => match self.last(&aggregate).await? {
                (last, position) if last + 1 == first => position,
                _ => return Ok(false),
            },
        };
        let condition = DcbAppendCondition::new(of_account(&aggregate)).after(after);
        let credited = (first..)
            .zip(states)
            .map(|(version, state)| {
                DcbEvent::new().event_type(version.to_string()).tags([&*aggregate]).data(state)
            })
            .collect();
        match self.0.append(credited, Some(condition), None).await {
            Ok(_) => Ok(true),
            Err(DcbError::IntegrityError(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn last_version(&self, aggregate: &str) -> Result<i64> {
        Ok(self.last(aggregate).await?.0)
    }

    async fn load(&self, aggregate: &str) -> Result<usize> {
        Ok(self.read(aggregate).await?.0)
    }

    async fn page(&self, events: usize, page: usize) -> Result<usize> {
        let (mut count, mut start) = (0, None);
        while count < events {
            let limit = u32::try_from(page.min(events - count))?;
            let (read, _) = self.0.read_with_head(None, start, false, Some(limit)).await?;
            let Some(last) = read.last() else { break };
            count += read.len();
            start = Some(last.position + 1);
        }
        Ok(count)
    }
}

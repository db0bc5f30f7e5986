//! Commands that contend for one aggregate on SQLite, beside a naive loop of ten attempts; and the time of a
//! command and of a load, by the number of events.
#![expect(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::{
    convert::Infallible,
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use es_aggregate::{Aggregate, Repository, SnapshotPolicy};
use es_core::{
    DomainEvent, EventRange, EventStore, Mapper, Metadata, PersistenceError, SnapshotState, uuid::Uuid,
};
use es_derive::Event;
use es_sqlite::{SqliteApplicationRecorder, SqliteOptions};
use es_transcode::JsonTranscoder;
use serde::{Deserialize, Serialize};

const COMMANDS: usize = 60;
const NAIVE_ATTEMPTS: usize = 10;
const ROUNDS: usize = 5;
const LOADS: u32 = 500;

#[derive(Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    Credited { cents: i64, reference: String },
}

#[derive(Default, Serialize, Deserialize)]
struct Account {
    balance: i64,
}

impl Aggregate for Account {
    type Event = AccountEvent;

    fn apply(&mut self, AccountEvent::Credited { cents, .. }: &AccountEvent) {
        self.balance += cents;
    }
}

impl SnapshotState for Account {
    const AGGREGATE_TOPIC: &str = "bank:Account";
}

impl Account {
    fn credit(&self) -> Result<[AccountEvent; 1], Infallible> {
        Ok([AccountEvent::Credited { cents: 1, reference: "invoice 2026-11-29".to_owned() }])
    }
}

type Store = EventStore<SqliteApplicationRecorder, JsonTranscoder>;
type Accounts = Repository<Account, SqliteApplicationRecorder, JsonTranscoder>;
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("bank.db");
    println!("{COMMANDS} commands at the same time on one aggregate: succeeded, time");
    let accounts = Repository::new(store(&path).await?);
    contend("one repository", &[accounts]).await?;
    let accounts = [Repository::new(store(&path).await?), Repository::new(store(&path).await?)];
    contend("two repositories, as in two processes", &accounts).await?;
    contend_naively(&path).await?;
    commands_and_loads(&path).await
}

async fn store(path: &Path) -> Result<Store> {
    let recorder = SqliteOptions::new(path).open().await?.application_recorder().await?;
    Ok(EventStore::new(recorder, Mapper::new(JsonTranscoder::new())))
}

async fn contend(name: &str, accounts: &[Accounts]) -> Result<()> {
    for _ in 0..ROUNDS {
        let (id, start) = (Uuid::now_v7(), Instant::now());
        let commands: Vec<_> = (0..COMMANDS)
            .map(|number| {
                let accounts = accounts[number % accounts.len()].clone();
                tokio::spawn(
                    async move { accounts.execute(id, Metadata::new(), Account::credit).await.is_ok() },
                )
            })
            .collect();
        report(name, commands, start).await?;
    }
    Ok(())
}

/// Load, decide and append, up to ten times, without a pause: the loop that programs write.
async fn contend_naively(path: &Path) -> Result<()> {
    let store = Arc::new(store(path).await?);
    for _ in 0..ROUNDS {
        let (id, start) = (Uuid::now_v7(), Instant::now());
        let commands: Vec<_> = (0..COMMANDS)
            .map(|_| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { execute_naively(&store, id).await.is_ok() })
            })
            .collect();
        report("a naive loop of ten attempts", commands, start).await?;
    }
    Ok(())
}

async fn execute_naively(store: &Store, id: Uuid) -> Result<(), PersistenceError> {
    let mut attempts = 1;
    loop {
        let mut account = Account::default();
        let events = store.get::<AccountEvent>(id, EventRange::all()).await?;
        events.iter().for_each(|event| account.apply(&event.payload));
        let version = events.last().map_or(1, |event| event.originator_version + 1);
        let Ok([event]) = account.credit();
        match store.put(&[DomainEvent::new(id, version, event)]).await {
            Err(error) if error.is_conflict() && attempts < NAIVE_ATTEMPTS => attempts += 1,
            result => return result.map(drop),
        }
    }
}

async fn report(name: &str, commands: Vec<tokio::task::JoinHandle<bool>>, start: Instant) -> Result<()> {
    let mut succeeded = 0;
    for command in commands {
        succeeded += usize::from(command.await?);
    }
    println!("{name}: {succeeded} of {COMMANDS}, {} ms", start.elapsed().as_millis());
    Ok(())
}

async fn commands_and_loads(path: &Path) -> Result<()> {
    let snapshots = SqliteOptions::new(path).open().await?.aggregate_recorder("snapshots").await?;
    let snapshots = EventStore::new(snapshots, Mapper::new(JsonTranscoder::new()));
    let accounts = Repository::<Account, _, _>::new(store(path).await?);
    let with_snapshots = accounts.clone().snapshots(snapshots, SnapshotPolicy::every(50));
    println!("events of the aggregate: a load, a load with snapshots every 50, a command");
    for count in [1, 10, 50, 500, 5_000] {
        let id = Uuid::now_v7();
        for _ in 0..count {
            with_snapshots.execute(id, Metadata::new(), Account::credit).await?;
        }
        let load = load(&accounts, id).await?;
        let load_with_snapshots = self::load(&with_snapshots, id).await?;
        let start = Instant::now();
        for _ in 0..LOADS {
            with_snapshots.execute(id, Metadata::new(), Account::credit).await?;
        }
        println!("{count}: {load:?}, {load_with_snapshots:?}, {:?}", start.elapsed() / LOADS);
    }
    Ok(())
}

async fn load(accounts: &Accounts, id: Uuid) -> Result<Duration> {
    let start = Instant::now();
    for _ in 0..LOADS {
        accounts.load(id).await?;
    }
    Ok(start.elapsed() / LOADS)
}

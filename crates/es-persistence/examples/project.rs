//! Keeps a SQL table that is always consistent with its position.
//!
//! Accounts are opened and credited; a projection keeps their balances in a table of its own. Each
//! balance is written in the transaction that records the position, so that after a crash at
//! any moment each event is counted exactly once. Run it again, and it continues with the same file:
//! ```console
//! $ cargo run --example project
//! ```
//! The code for PostgreSQL is the same: `es_postgres::PostgresProjection`, with asynchronous statements.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{env, error::Error, time::Duration};

use es_persistence::{
    DomainEvent, Event, EventStore, HandlerError, Mapper, Notification, TrackingRecorderExt,
    process::Processor,
    sqlite::{
        SqliteApplicationRecorder, SqliteOptions, SqliteProjection,
        rusqlite::{self, Connection, Transaction},
    },
    transcode::JsonTranscoder,
    uuid::Uuid,
};

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    Opened { owner: String },
    Credited { cents: u32 },
}

/// Keeps the table `balances`.
struct Balances(Mapper<JsonTranscoder>);

impl SqliteProjection for Balances {
    type Error = HandlerError;

    fn set_up(&mut self, transaction: &Transaction<'_>) -> Result<(), HandlerError> {
        Ok(transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, owner TEXT, cents INTEGER NOT NULL)",
        )?)
    }

    fn project(
        &mut self,
        transaction: &Transaction<'_>,
        notification: &Notification,
    ) -> Result<(), HandlerError> {
        let event: DomainEvent<AccountEvent> = self.0.to_domain_event(&notification.event)?;
        let account = event.originator_id.to_string();
        match event.payload {
            AccountEvent::Opened { owner } => transaction
                .prepare_cached("INSERT INTO balances VALUES (?1, ?2, 0)")?
                .execute((account, owner))?,
            AccountEvent::Credited { cents } => transaction
                .prepare_cached("UPDATE balances SET cents = cents + ?2 WHERE account = ?1")?
                .execute((account, cents))?,
        };
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::temp_dir().join("es-persistence-balances.db");
    let datastore = SqliteOptions::new(&file).open().await?;
    let bank = datastore.application_recorder().await?;
    let store = EventStore::new(bank.clone(), Mapper::new(JsonTranscoder::new()));

    // The projection follows the bank, in the same file here. Its position is recorded in that file too,
    // under its own name. To rebuild it, give it a new name and a new table.
    let positions = datastore.tracking_recorder().await?;
    let projector = positions.projector(Balances(Mapper::new(JsonTranscoder::new()))).await?;
    let processor = Processor::with_consumer("balances", bank, projector).topics(AccountEvent::TOPICS);
    let mut processing = processor.spawn()?;

    let last = credit_three_accounts(&store).await?;
    // Read your writes: the table contains them when the position is recorded.
    positions.wait("balances", last, Duration::from_secs(10)).await?;
    println!("processed up to notification {}; the largest balances:", processing.progress().position());
    for (owner, cents) in largest_balances(&file)? {
        println!("  {owner:<8} {:>6}.{:02}", cents / 100, cents % 100);
    }

    processing.stop();
    Ok(processing.join().await?)
}

/// Opens three accounts and credits each twice; returns the id of the last notification.
async fn credit_three_accounts(
    store: &EventStore<SqliteApplicationRecorder, JsonTranscoder>,
) -> Result<i64, Box<dyn Error>> {
    let mut last = 0;
    for (owner, cents) in [("Alice", 1_250), ("Bob", 80), ("Carol", 99_999)] {
        let account = Uuid::now_v7();
        let opened = DomainEvent::new(account, 1, AccountEvent::Opened { owner: owner.to_owned() });
        let credits =
            [2, 3].map(|version| DomainEvent::new(account, version, AccountEvent::Credited { cents }));
        let ids = store.batch().with(&[opened]).await?.with(&credits).await?.commit().await?;
        last = ids.last().copied().unwrap_or(last);
    }
    Ok(last)
}

/// Reads the table as any program does: with its own connection.
fn largest_balances(file: &std::path::Path) -> rusqlite::Result<Vec<(String, i64)>> {
    let connection = Connection::open(file)?;
    let mut select = connection.prepare("SELECT owner, cents FROM balances ORDER BY cents DESC LIMIT 5")?;
    select.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

//! Stores events, reads them back, and processes each exactly once.
//!
//! A bank account is opened, credited and closed. Its events are compressed and encrypted in a SQLite
//! file. A second application follows the bank's notifications and writes statements, each line
//! recorded together with its position: after a restart, no notification is processed twice.
//!
//! Runs on SQLite in a temporary folder; the environment can override this:
//! `PERSISTENCE_MODULE=popo`, or with `--features postgres` and `POSTGRES_DBNAME` and its like set,
//! `PERSISTENCE_MODULE=postgres`.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, path::Path, sync::Arc};

use bigdecimal::BigDecimal;
use es_persistence::{
    ApplicationRecorder, DomainEvent, DynProcessRecorder, Event, EventRange, EventStore, Expected,
    Notification, NotificationSelection, PersistenceError, Tracking, TrackingRecorder, crypto::AesCipher,
    factory::InfrastructureFactory, transcode::JsonTranscoder,
};
use uuid::Uuid;

/// The events of an account. Each variant has a topic of its own, such as `bank:Account.Opened`.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    Opened {
        owner: String,
        #[event(registered)]
        owner_id: Uuid,
    },
    Credited {
        #[event(registered)]
        amount: BigDecimal,
        note: String,
    },
    Closed,
}

/// The event of the second application.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "statements:LineWritten")]
struct LineWritten {
    text: String,
}

type Store = EventStore<Arc<dyn DynProcessRecorder>, JsonTranscoder>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let environment = environment(folder.path())?;
    let account = Uuid::now_v7();

    println!("1. An account is opened, credited and closed");
    let bank = open("bank", &environment).await?;
    let owner_id = Uuid::new_v4();
    let opened = AccountEvent::Opened { owner: "Alice".to_owned(), owner_id };
    let credited = AccountEvent::Credited { amount: "12.50".parse()?, note: "first salary".to_owned() };
    let ids = bank.append(account, Expected::New, [opened, credited]).await?;
    println!("   two events in one commit, notification ids {ids:?}");
    let ids = bank.append(account, Expected::Version(2), [AccountEvent::Closed]).await?;
    println!("   one more, notification id {ids:?}");

    println!("2. A client that does not know that it is closed credits it once more");
    let late = AccountEvent::Credited { amount: "1.00".parse()?, note: "too late".to_owned() };
    match bank.append(account, Expected::Version(2), [late]).await {
        Err(error) if error.is_conflict() => println!("   refused: {error}"),
        other => return Err(format!("a conflict was expected, not {other:?}").into()),
    }

    println!("3. Read back, decrypted, typed");
    for event in bank.get::<AccountEvent>(account, EventRange::all()).await? {
        println!(
            "   version {}, {}: {}",
            event.originator_version,
            event.timestamp,
            describe(&event.payload)
        );
    }
    show_stored_bytes(&bank, account).await?;

    println!("4. Another application follows the log, and stops after two notifications");
    let statements = open("statements", &environment).await?;
    follow(&bank, &statements, 2).await?;
    drop(statements);

    println!("5. It starts again, and goes on where it was");
    let statements = open("statements", &environment).await?;
    follow(&bank, &statements, usize::MAX).await?;
    println!("   and if it tried the last one again:");
    let last = bank.recorder().max_notification_id().await?.unwrap_or_default();
    match statements.batch().commit_with_tracking(Tracking::new("statements", last)?).await {
        Err(error) if error.is_conflict() => println!("   refused: {error}"),
        other => return Err(format!("a conflict was expected, not {other:?}").into()),
    }

    println!("6. The statement: every line once");
    for line in statements.get::<LineWritten>(statement_of(account), EventRange::all()).await? {
        println!("   {}. {}", line.originator_version, line.payload.text);
    }
    Ok(())
}

/// The environment of the process, with defaults for missing settings: SQLite, a file for each
/// application, zlib, and a fresh key.
fn environment(folder: &Path) -> Result<Vec<(String, String)>, PersistenceError> {
    let file = |name: &str| folder.join(name).display().to_string();
    let defaults = [
        ("PERSISTENCE_MODULE", "sqlite".to_owned()),
        ("BANK_SQLITE_DBNAME", file("bank.db")),
        ("STATEMENTS_SQLITE_DBNAME", file("statements.db")),
        ("COMPRESSOR_TOPIC", "zlib".to_owned()),
        ("CIPHER_KEY", AesCipher::create_key(32)?),
    ];
    let defaults = defaults.map(|(name, value)| (name.to_owned(), value));
    let set = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(defaults.into_iter().chain(set).collect())
}

async fn open(application_name: &str, environment: &[(String, String)]) -> Result<Store, PersistenceError> {
    let factory =
        InfrastructureFactory::builder(application_name).environment(environment.iter().cloned()).build()?;
    Ok(EventStore::new(factory.process_recorder().await?, factory.mapper()?))
}

async fn show_stored_bytes(bank: &Store, account: Uuid) -> Result<(), PersistenceError> {
    use es_persistence::AggregateRecorder;
    for event in bank.recorder().select_events(account, EventRange::all().limit(1)).await? {
        let beginning: String = event.state.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        println!("   what is stored of the first: {} bytes, {beginning}…", event.state.len());
    }
    Ok(())
}

/// Processes the bank's notifications after the recorded position, at most `limit` of them.
async fn follow(bank: &Store, statements: &Store, limit: usize) -> Result<(), PersistenceError> {
    let position = statements.recorder().max_tracking_id("statements").await?;
    let position = position.unwrap_or(0);
    println!("   recorded position: {position}");
    let selection = NotificationSelection::new(limit).after(position);
    for notification in bank.recorder().select_notifications(selection).await? {
        process(bank, statements, &notification).await?;
    }
    Ok(())
}

/// Records a line and the position of the notification that it accounts for, in one commit.
async fn process(
    bank: &Store,
    statements: &Store,
    notification: &Notification,
) -> Result<(), PersistenceError> {
    let event: DomainEvent<AccountEvent> = bank.mapper().to_domain_event(&notification.event)?;
    let text = describe(&event.payload);
    println!("   notification {}: {text}", notification.id);
    let line =
        DomainEvent::new(statement_of(event.originator_id), event.originator_version, LineWritten { text });
    statements
        .batch()
        .with(&[line])
        .await?
        .commit_with_tracking(Tracking::new("statements", notification.id)?)
        .await?;
    Ok(())
}

fn describe(event: &AccountEvent) -> String {
    match event {
        AccountEvent::Opened { owner, .. } => format!("{owner} opened the account"),
        AccountEvent::Credited { amount, note } => format!("{amount} came in: {note}"),
        AccountEvent::Closed => "the account was closed".to_owned(),
    }
}

/// The aggregate that an account's statement lines belong to.
fn statement_of(account: Uuid) -> Uuid {
    Uuid::new_v5(&account, b"statement")
}

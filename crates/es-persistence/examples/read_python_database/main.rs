//! Reads a database that the Python library wrote.
//!
//! Opens it, and prints its events, decrypted and typed. By default it is a small database of the
//! project; with `PERSISTENCE_MODULE` set, it is the one that the environment names, with the settings
//! under which Python wrote it: `SQLITE_DBNAME` or `POSTGRES_DBNAME` and its like, and `CIPHER_KEY` and
//! `COMPRESSOR_TOPIC` where they were set.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

mod bank;

use std::{error::Error, ffi::OsString, path::Path};

use bank::{Account, AccountEvent};
use es_persistence::{
    AggregateRecorder, ApplicationRecorderExt, DomainEvent, EventRange, EventStore, NotificationSelection,
    Snapshot, TrackingRecorder, factory::InfrastructureFactory, transcode::JsonTranscoder,
};
use futures_util::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Opening a database in WAL mode creates files next to it, so the database of the project is copied.
    let copy = tempfile::tempdir()?;
    let factory = InfrastructureFactory::builder("bank")
        .environment(environment(copy.path())?)
        .transcoder(bank::transcoder())
        .build()?;
    let recorder = factory.process_recorder().await?;
    let snapshots = factory.snapshot_store().await?;
    let mapper = factory.mapper()?;

    let mut notifications =
        std::pin::pin!(recorder.stream_notifications(NotificationSelection::new(usize::MAX)));
    let mut shown = 0;
    while let Some(notification) = notifications.try_next().await? {
        let event: DomainEvent<AccountEvent> = mapper.to_domain_event(&notification.event)?;
        println!(
            "{:>4}  {}  v{:<3} {}",
            notification.id, event.originator_id, event.originator_version, event.timestamp
        );
        println!("      {}", event.payload);
        shown += 1;
        if let Some(snapshots) = &snapshots {
            show_snapshot(snapshots, &event).await?;
        }
    }
    println!("{shown} events");
    if let Some(position) = recorder.max_tracking_id("upstream").await? {
        println!("processed of application \"upstream\": up to notification {position}");
    }
    Ok(())
}

/// Shows the snapshot at the version of an event, if there is one.
async fn show_snapshot<R: AggregateRecorder>(
    snapshots: &EventStore<R, JsonTranscoder>,
    event: &DomainEvent<AccountEvent>,
) -> Result<(), Box<dyn Error>> {
    let version = event.originator_version;
    let exactly = EventRange::all().gt(version - 1).lte(version);
    for snapshot in snapshots.get::<Snapshot<Account>>(event.originator_id, exactly).await? {
        let Account { owner, balance, .. } = snapshot.payload.state;
        println!("      snapshot: {owner} has {balance}");
    }
    Ok(())
}

/// The environment of the process, or that of the project's own small database.
fn environment(copy: &Path) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let text =
        |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let mut environment: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
    environment.push(("IS_SNAPSHOTTING_ENABLED".to_owned(), "y".to_owned()));
    if std::env::var_os("PERSISTENCE_MODULE").is_none() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python/sqlite-9.5-aes256-zlib.db");
        let database = copy.join("bank.db");
        std::fs::copy(shipped, &database)?;
        let settings = [
            ("PERSISTENCE_MODULE", "eventsourcing.sqlite".to_owned()),
            ("SQLITE_DBNAME", database.display().to_string()),
            ("COMPRESSOR_TOPIC", "eventsourcing.compressor:ZlibCompressor".to_owned()),
            ("CIPHER_TOPIC", "eventsourcing.cipher:AESCipher".to_owned()),
            ("CIPHER_KEY", "S7dWXcSV2xZeweJ0QSsbXuJxSvvS9SN+L6rBY9rcy0Q=".to_owned()),
        ];
        environment.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    }
    Ok(environment)
}

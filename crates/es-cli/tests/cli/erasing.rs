//! `es keys erase`, and the keys of data subjects in the other commands.

use std::{collections::BTreeMap, fs, path::PathBuf};

use es_core::{DomainEvent, EventRange, Expected, Snapshot, SnapshotState, uuid::Uuid};
use es_derive::Event;
use es_factory::InfrastructureFactory;
use es_personal::{Personal, Subject};
use serde::{Deserialize, Serialize};

use crate::support::Sandbox;

/// Two keys, of which the first encrypts.
const KEYS: &str =
    "1:5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=,2:9gdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=";

#[derive(Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed {
        buyer: Personal<String>,
        receiver: Personal<String>,
    },
    #[event(subject = customer, erased = |_| Self::Shipped)]
    Noted {
        customer: Subject,
        text: String,
    },
    Shipped,
}

#[derive(Serialize, Deserialize)]
struct Order {
    buyer: Personal<String>,
}

impl SnapshotState for Order {
    const AGGREGATE_TOPIC: &str = "shop:Order";
}

fn subject(number: u128) -> Subject {
    Subject::from(Uuid::from_u128(number))
}

fn name(number: u128) -> Personal<String> {
    Personal::new(subject(number), "Alice".to_owned())
}

fn factory(sandbox: &Sandbox) -> InfrastructureFactory {
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    let variables = [
        ("PERSISTENCE_MODULE", "sqlite".to_owned()),
        ("SQLITE_DBNAME", path("bank.db")),
        ("IS_SNAPSHOTTING_ENABLED", "yes".to_owned()),
        ("CIPHER_KEYS", KEYS.to_owned()),
        ("COMPRESSOR_TOPIC", "zlib".to_owned()),
        ("PERSONAL_KEYS_URL", format!("sqlite:{}", path("keys.db"))),
    ];
    InfrastructureFactory::builder("").environment(variables).personal::<String>().build().unwrap()
}

/// A database with an event of two subjects, a sealed one, one without a subject, and a snapshot.
async fn recorded() -> Sandbox {
    let mut sandbox = Sandbox::new();
    let factory = factory(&sandbox);
    let events = factory.event_store().await.unwrap();
    let snapshots = factory.snapshot_store().await.unwrap().unwrap();
    let id = Uuid::from_u128(1);
    let recorded = [
        OrderEvent::Placed { buyer: name(1), receiver: name(1) },
        OrderEvent::Placed { buyer: name(2), receiver: name(1) },
        OrderEvent::Noted { customer: subject(1), text: "called".to_owned() },
        OrderEvent::Shipped,
    ];
    events.append(id, Expected::New, recorded).await.unwrap();
    let snapshot = Snapshot { state: Order { buyer: name(1) } };
    snapshots.put(&[DomainEvent::new(id, 4, snapshot)]).await.unwrap();
    factory.close().await.unwrap();
    sandbox.set("CIPHER_KEYS", KEYS);
    sandbox.set("COMPRESSOR_TOPIC", "zlib");
    sandbox.set("PERSONAL_KEYS_URL", "sqlite:keys.db");
    sandbox
}

const FOUND: &str = "\
TABLE      TOPIC                          STATES  VALUES
events     shop:Order.Noted                    1       1
events     shop:Order.Placed                   2       3
snapshots  eventsourcing.domain:Snapshot       1       1
";

#[tokio::test]
async fn a_subject_is_searched_and_erased_with_a_record() {
    let sandbox = recorded().await;
    let alice = subject(1).to_string();
    let before = sandbox.on_bank(&["keys", "erase", &alice, "--dry-run"]);
    assert_eq!(before.output(), format!("{FOUND}data subject {alice} has a key\n"));
    sandbox.on_bank(&["keys", "erase", &alice]).fails_with(2, "hint: pass --yes");
    assert!(sandbox.on_bank(&["log"]).output().lines().count() == 4, "no event of the erasure");

    let erase = ["keys", "erase", &alice, "--yes", "--by", "Bob", "--reason", "request 4711"];
    let erased = sandbox.on_bank(&erase);
    let record = erased.output().strip_prefix(FOUND).unwrap();
    assert!(record.starts_with(&format!("data subject {alice} is erased since 2")), "{record}");
    assert!(record.ends_with(" by Bob: request 4711\n"), "{record}");
    // Repeated: one record and one event.
    let again = sandbox.on_bank(&["keys", "erase", &alice, "--yes", "--by", "Carol", "--format", "json"]);
    let record: serde_json::Value = serde_json::from_str(again.output().lines().last().unwrap()).unwrap();
    assert_eq!((&record["has_key"], &record["erased_by"]), (&false.into(), &"Bob: request 4711".into()));
    assert_eq!(record["unreadable"], 0);
    let log = sandbox.on_bank(&["log", "--topic", "es_personal:SubjectErased", "--format", "json"]);
    assert_eq!(log.output().lines().count(), 1);
    assert!(log.output().contains(&alice) && log.output().contains("request 4711"), "{log:?}");

    let factory = factory(&sandbox);
    let events = factory.event_store().await.unwrap();
    let read = events.get::<OrderEvent>(Uuid::from_u128(1), EventRange::all()).await.unwrap();
    let OrderEvent::Placed { buyer, receiver } = &read[1].payload else { panic!() };
    assert!(receiver.is_erased() && buyer.value().is_some());
    assert!(matches!(read[2].payload, OrderEvent::Shipped));
    let snapshots = factory.snapshot_store().await.unwrap().unwrap();
    let snapshot = snapshots.get::<Snapshot<Order>>(Uuid::from_u128(1), EventRange::all()).await.unwrap();
    assert!(snapshot[0].payload.state.buyer.is_erased());
}

/// The databases with their bytes. A connection that only reads leaves an empty log and its index.
fn databases(sandbox: &Sandbox) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(sandbox.path("")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.map(|path| (path.clone(), fs::read(path).unwrap()));
    files.filter(|(path, bytes)| !path.ends_with("bank.db-shm") && !bytes.is_empty()).collect()
}

#[tokio::test]
async fn a_dry_run_changes_no_byte() {
    let sandbox = recorded().await;
    let before = databases(&sandbox);
    assert_eq!(before.len(), 2, "a log and a key store");
    for subject in [subject(1).to_string(), "customer-7".to_owned()] {
        sandbox.on_bank(&["keys", "erase", &subject, "--dry-run"]).output();
        assert!(databases(&sandbox) == before, "a file has other bytes");
    }
    sandbox.on_bank(&["keys", "erase", "customer-7", "--yes"]).output();
    assert!(databases(&sandbox).into_values().ne(before.into_values()), "an erasure has no effect");
}

#[tokio::test]
async fn an_erasure_without_an_event_leaves_the_log_as_it_is() {
    let sandbox = recorded().await;
    // A subject without values.
    let erased = sandbox.on_bank(&["keys", "erase", "customer-7", "--no-event", "--yes"]);
    assert!(erased.output().starts_with("TABLE  TOPIC  STATES  VALUES\ndata subject customer-7 is erased"));
    assert!(erased.output().ends_with(" by es\n"), "{erased:?}");
    assert_eq!(sandbox.on_bank(&["log"]).output().lines().count(), 4);
    let other = sandbox.on_bank(&["keys", "erase", "customer-8", "--dry-run"]);
    assert!(other.output().ends_with("data subject customer-8 has no key\n"), "{other:?}");
}

#[tokio::test]
async fn a_store_that_is_missing_and_a_state_that_cannot_be_read_are_reported() {
    let mut sandbox = recorded().await;
    sandbox.execute("UPDATE stored_events SET state = x'00' WHERE originator_version = 4");
    let alice = subject(1).to_string();
    let run = sandbox.on_bank(&["keys", "erase", &alice, "--dry-run"]);
    assert!(run.output().contains("1 states cannot be decoded, and were not searched\n"), "{run:?}");
    for hostile in ["", "a\nb", &"x".repeat(10_000)] {
        sandbox.on_bank(&["keys", "erase", hostile, "--yes"]).fails_with(2, "a data subject ");
    }
    sandbox.set("PERSONAL_KEYS_URL", "sqlite:mistyped.db");
    let run = sandbox.on_bank(&["keys", "erase", &alice, "--yes"]);
    assert!(run.exit != 0 && run.stderr.contains("mistyped.db"), "{run:?}");
    assert!(!sandbox.path("mistyped.db").exists());
    sandbox.set("PERSONAL_KEYS_URL", "");
    sandbox.on_bank(&["keys", "erase", &alice, "--yes"]).fails_with(2, "no key store is set");
    // Nothing was erased.
    sandbox.set("PERSONAL_KEYS_URL", "sqlite:keys.db");
    let run = sandbox.on_bank(&["keys", "erase", &alice, "--dry-run"]);
    assert!(run.output().ends_with("has a key\n"), "{run:?}");
}

#[tokio::test]
async fn the_keys_of_subjects_are_counted_and_wrapped_again() {
    let mut sandbox = recorded().await;
    let usage = |sandbox: &Sandbox| sandbox.on_bank(&["keys", "usage"]).output().to_owned();
    let expected = |key: u32| {
        format!(
            "TABLE         KEY  STATES\nevents        {key}         4\nsnapshots     {key}         1\n\
             subject_keys  {key}         2\n"
        )
    };
    assert_eq!(usage(&sandbox), expected(1));
    sandbox.set("CIPHER_PRIMARY_KEY_ID", "2");
    let done = sandbox.on_bank(&["keys", "reencrypt", "--yes"]);
    assert!(done.output().ends_with("subject_keys: 2 of 2 keys were encrypted again\n"), "{done:?}");
    assert_eq!(usage(&sandbox), expected(2));
    let again = sandbox.on_bank(&["keys", "reencrypt", "--yes", "--format", "json"]);
    let expected = r#"{"table":"subject_keys","read":2,"reencrypted":0}"#;
    assert_eq!(again.output().lines().last(), Some(expected));
    // The values are read with the new key alone.
    let only = KEYS.split_once(',').unwrap().1;
    let path = |name: &str| sandbox.path(name).to_str().unwrap().to_owned();
    let variables = [
        ("PERSISTENCE_MODULE", "sqlite".to_owned()),
        ("SQLITE_DBNAME", path("bank.db")),
        ("CIPHER_KEYS", only.to_owned()),
        ("COMPRESSOR_TOPIC", "zlib".to_owned()),
        ("PERSONAL_KEYS_URL", format!("sqlite:{}", path("keys.db"))),
    ];
    let factory =
        InfrastructureFactory::builder("").environment(variables).personal::<String>().build().unwrap();
    let events = factory.event_store().await.unwrap();
    let read = events.get::<OrderEvent>(Uuid::from_u128(1), EventRange::all()).await.unwrap();
    let OrderEvent::Placed { buyer, .. } = &read[0].payload else { panic!() };
    assert_eq!(buyer.value().map(String::as_str), Some("Alice"));
}

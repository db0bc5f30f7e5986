//! Each database that the Python library wrote holds here exactly what the file beside it says, typed,
//! every attribute; what is appended here is found beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by unwrapping it"
)]

#[path = "../examples/read_python_database/bank.rs"]
mod bank;

use std::{marker::PhantomData, path::PathBuf, sync::Arc};

use bank::{Account, AccountEvent, ComplexCustomValue};
use es_persistence::{
    AggregateRecorder, ApplicationRecorder, DomainEvent, DynProcessRecorder, EventRange, EventStore,
    Notification, NotificationSelection, ProcessRecorder, Snapshot, Tracking, TrackingRecorder, Transcoder,
    factory::InfrastructureFactory,
    transcode::{JsonTranscoder, Value},
};
use serde::Deserialize;
use tempfile::TempDir;
use time::{Date, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Iso8601};
use uuid::Uuid;

type Store = EventStore<Arc<dyn DynProcessRecorder>, JsonTranscoder>;

/// What must be found, as the file beside the database says.
#[derive(Deserialize)]
struct Expected {
    notifications: Vec<ExpectedEvent>,
    snapshots: Vec<ExpectedEvent>,
    env: std::collections::HashMap<String, String>,
}

#[derive(Deserialize)]
struct ExpectedEvent {
    id: Option<i64>,
    originator_id: Uuid,
    originator_version: i64,
    topic: String,
    state_hex: String,
    #[serde(default)]
    attributes: Value,
}

/// A copy of a database, and what is in it.
struct Database {
    folder: TempDir,
    expected: Expected,
}

impl Database {
    fn copy(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(testdata(&format!("{name}.db")), folder.path().join("bank.db")).unwrap();
        let expected = std::fs::read(testdata(&format!("{name}.json"))).unwrap();
        // Not by serde_json alone: the integers may be larger than those it knows.
        let expected = JsonTranscoder::new().decode(PhantomData::<Expected>, &expected).unwrap();
        Self { folder, expected }
    }

    /// A factory by the very settings under which Python wrote.
    fn factory(&self) -> InfrastructureFactory {
        let path = self.folder.path().join("bank.db").display().to_string();
        let settings = self.expected.env.iter().map(|(name, value)| (name.clone(), value.clone()));
        InfrastructureFactory::builder("bank")
            .environment(settings.chain([("SQLITE_DBNAME".to_owned(), path)]))
            .transcoder(bank::transcoder())
            .build()
            .unwrap()
    }

    async fn store(&self) -> Store {
        let factory = self.factory();
        EventStore::new(factory.process_recorder().await.unwrap(), factory.mapper().unwrap())
    }
}

macro_rules! databases {
    ($($test:ident = $name:literal;)*) => {
        $(mod $test {
            use super::*;

            #[tokio::test]
            async fn every_event_is_found() {
                finds_every_event(&Database::copy($name)).await;
            }

            #[tokio::test]
            async fn every_snapshot_is_found() {
                finds_every_snapshot(&Database::copy($name)).await;
            }

            #[tokio::test]
            async fn tracking_goes_on() {
                goes_on_tracking(&Database::copy($name)).await;
            }

            #[tokio::test]
            async fn what_is_appended_stands_beside() {
                appends(&Database::copy($name)).await;
            }
        })*
    };
}

databases! {
    version_9_1_plain = "sqlite-9.1-plain";
    version_9_1_zlib = "sqlite-9.1-zlib";
    version_9_1_aes128_zlib = "sqlite-9.1-aes128-zlib";
    version_9_5_plain = "sqlite-9.5-plain";
    version_9_5_aes192 = "sqlite-9.5-aes192";
    version_9_5_aes256_zlib = "sqlite-9.5-aes256-zlib";
}

async fn finds_every_event(database: &Database) {
    let store = database.store().await;
    let found = all_notifications(&store).await;
    assert_eq!(found.len(), database.expected.notifications.len());
    for (found, expected) in found.iter().zip(&database.expected.notifications) {
        assert_eq!(Some(found.id), expected.id);
        assert_eq!(found.event.originator_id, expected.originator_id);
        assert_eq!(found.event.originator_version, expected.originator_version);
        assert_eq!(found.event.topic, *expected.topic);
        assert_eq!(hex(&found.event.state), expected.state_hex);
        let event: DomainEvent<AccountEvent> = store.mapper().to_domain_event(&found.event).unwrap();
        assert_eq!(attributes(event), comparable(&expected.attributes), "notification {}", found.id);
    }
}

async fn finds_every_snapshot(database: &Database) {
    let factory = database.factory();
    let snapshots = factory.snapshot_store().await.unwrap().expect("snapshotting is enabled");
    let store = database.store().await;
    assert!(!database.expected.snapshots.is_empty());
    for expected in &database.expected.snapshots {
        let newest = EventRange::all().desc().limit(1);
        let stored = snapshots.recorder().select_events(expected.originator_id, newest).await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].originator_version, expected.originator_version);
        assert_eq!(stored[0].topic, *expected.topic);
        assert_eq!(hex(&stored[0].state), expected.state_hex);
        let typed = snapshots.get::<Snapshot<Account>>(expected.originator_id, newest).await.unwrap();
        let account = &typed[0].payload.state;
        assert_eq!(*account, replayed(&store, expected.originator_id, expected.originator_version).await);
    }
}

async fn goes_on_tracking(database: &Database) {
    let store = database.store().await;
    let recorder = store.recorder();
    assert_eq!(recorder.max_tracking_id("upstream").await.unwrap(), Some(7));
    assert_eq!(recorder.max_tracking_id("other").await.unwrap(), Some(41));
    assert_eq!(recorder.max_tracking_id("__migration__").await.unwrap(), None);
    let refused = recorder.insert_tracking(Tracking::new("upstream", 7).unwrap()).await.unwrap_err();
    assert!(refused.is_conflict());
    recorder.insert_events_with_tracking(Vec::new(), Tracking::new("upstream", 9).unwrap()).await.unwrap();
    let refused = recorder.insert_tracking(Tracking::new("upstream", 8).unwrap()).await.unwrap_err();
    assert!(refused.is_conflict());
    assert_eq!(database.store().await.recorder().max_tracking_id("upstream").await.unwrap(), Some(9));
}

async fn appends(database: &Database) {
    let before = all_notifications(&database.store().await).await;
    let account = before[0].event.originator_id;
    let version = before.iter().filter(|found| found.event.originator_id == account).count() as i64 + 1;
    let event = DomainEvent::new(account, version, AccountEvent::Closed);
    let ids = database.store().await.put(std::slice::from_ref(&event)).await.unwrap();
    assert_eq!(ids, [before.len() as i64 + 1]);

    let store = database.store().await;
    let after = all_notifications(&store).await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    let events = store.get::<AccountEvent>(account, EventRange::all()).await.unwrap();
    assert_eq!(events.len() as i64, version);
    assert_eq!(events.last(), Some(&event));
    let refused = store.put(&[event]).await.unwrap_err();
    assert!(refused.is_conflict());
}

async fn all_notifications(store: &Store) -> Vec<Notification> {
    store.recorder().select_notifications(NotificationSelection::new(usize::MAX)).await.unwrap()
}

/// The account as its events tell it: what its snapshot must say.
async fn replayed(store: &Store, id: Uuid, version: i64) -> Account {
    let events = store.get::<AccountEvent>(id, EventRange::all().lte(version)).await.unwrap();
    let mut events = events.into_iter();
    let opened = events.next().unwrap();
    let AccountEvent::Opened { owner, owner_id, birthday, limit, .. } = opened.payload else {
        panic!("the first event opens the account");
    };
    let mut account = Account {
        created_on: opened.timestamp,
        modified_on: opened.timestamp,
        owner,
        owner_id,
        birthday,
        limit,
        balance: 0.into(),
        notes: Vec::new(),
        proof: None,
        closed: None,
    };
    for event in events {
        account.modified_on = event.timestamp;
        match event.payload {
            AccountEvent::Credited { amount, note, .. } => {
                account.balance += amount;
                account.notes.push(note);
            }
            AccountEvent::Verified { proof, .. } => account.proof = Some(proof),
            AccountEvent::Closed => account.closed = Some(true),
            AccountEvent::Opened { .. } => panic!("an account is opened once"),
        }
    }
    account
}

/// The attributes of a typed event, as values.
fn attributes(event: DomainEvent<AccountEvent>) -> Value {
    let own = match event.payload {
        AccountEvent::Opened { originator_topic, owner, owner_id, birthday, limit } => vec![
            ("originator_topic", Value::Str(originator_topic)),
            ("owner", Value::Str(owner)),
            ("owner_id", Value::Uuid(owner_id)),
            ("birthday", date(birthday)),
            ("limit", Value::Decimal(limit)),
        ],
        AccountEvent::Credited { amount, note, tags, booked_at } => vec![
            ("amount", Value::Decimal(amount)),
            ("note", Value::Str(note)),
            ("tags", Value::List(tags)),
            ("booked_at", booked_at),
        ],
        AccountEvent::Verified { proof, score, attempts, passed, remark } => vec![
            ("proof", complex(proof)),
            ("score", Value::Float(score)),
            ("attempts", Value::Int(attempts.to_string().parse().unwrap())),
            ("passed", Value::Bool(passed)),
            ("remark", remark),
        ],
        AccountEvent::Closed => Vec::new(),
    };
    let timestamp = ("timestamp", Value::Datetime(event.timestamp));
    let all = [timestamp].into_iter().chain(own);
    Value::Map(all.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn date(date: Date) -> Value {
    custom("date_iso", Value::Str(date.to_string()))
}

fn complex(ComplexCustomValue { value }: ComplexCustomValue) -> Value {
    let simple = vec![("id".to_owned(), Value::Uuid(value.id)), ("date".to_owned(), date(value.date))];
    custom("complex_custom_value", custom("simple_custom_value", Value::Map(simple)))
}

fn custom(name: &str, data: Value) -> Value {
    Value::Custom { name: name.to_owned(), data: Box::new(data) }
}

/// What the file writes as `{"uuid": …}`, `{"datetime": …}` and so on, as the values it stands for.
///
/// Read with other code than the transcodings under test.
fn comparable(written: &Value) -> Value {
    match written {
        Value::List(values) => Value::List(values.iter().map(comparable).collect()),
        Value::Map(entries) => match entries.as_slice() {
            [(sort, data)] => comparable_sort(sort, data),
            _ => Value::Map(entries.iter().map(|(name, value)| (name.clone(), comparable(value))).collect()),
        },
        plain => plain.clone(),
    }
}

fn comparable_sort(sort: &str, data: &Value) -> Value {
    match (sort, data) {
        ("uuid", Value::Str(text)) => Value::Uuid(text.parse().unwrap()),
        ("decimal", Value::Str(text)) => Value::Decimal(text.parse().unwrap()),
        ("date", Value::Str(text)) => custom("date_iso", Value::Str(text.clone())),
        ("datetime", Value::Str(text)) => match OffsetDateTime::parse(text, &Iso8601::DEFAULT) {
            Ok(aware) => Value::Datetime(aware),
            Err(_) => Value::NaiveDatetime(PrimitiveDateTime::parse(text, &Iso8601::DEFAULT).unwrap()),
        },
        ("timestamp", stamp) => Value::Map(vec![("timestamp".to_owned(), comparable(stamp))]),
        ("dict", Value::Map(entries)) => {
            Value::Map(entries.iter().map(|(name, value)| (name.clone(), comparable(value))).collect())
        }
        ("complex", simple) => custom("complex_custom_value", comparable(simple)),
        ("simple", Value::List(parts)) => {
            let [id, date] = parts.as_slice() else { panic!("a simple custom value has two parts") };
            let parts = vec![("id".to_owned(), comparable(id)), ("date".to_owned(), comparable(date))];
            custom("simple_custom_value", Value::Map(parts))
        }
        other => panic!("the file has an unexpected {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/python")).join(name)
}

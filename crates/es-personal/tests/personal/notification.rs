//! The notification of projections, and an erasure that is killed between its steps.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use es_core::{
    ApplicationRecorder, DynApplicationRecorder, ErrorKind, EventNotification, EventRange, EventStore,
    Expected, HandlerError, Mapper, TrackingRecorderExt, uuid::Uuid,
};
use es_derive::Event;
use es_factory::{InfrastructureFactory, Sql, SqlProjection};
use es_personal::{
    Erasure, KeyRecord, KeyReplacement, KeyStore, Personal, SqliteKeyStore, Subject, SubjectErased,
    SubjectKeys, WrappedKey,
};
use es_popo::PopoProcessRecorder;
use es_process::{NewEvents, Processor};
use es_transcode::JsonTranscoder;

use crate::{OrderEvent, keys, name, placed, subject, transcoder};

const ID: Uuid = Uuid::from_u128(1);
const DIRECTORY: &str = "ES_TEST_NOTIFICATION_DIRECTORY";
const TIMEOUT: Duration = Duration::from_secs(60);

type Log = EventStore<Arc<dyn DynApplicationRecorder>, JsonTranscoder>;

/// The events that the projection follows.
#[derive(Event)]
#[event(transparent)]
enum Followed {
    Order(OrderEvent),
    Erased(SubjectErased),
}

/// Keeps the names of buyers, and the number of erasures of each subject.
struct Buyers;

impl SqlProjection for Buyers {
    type Event = Followed;

    fn set_up(&self) -> Vec<Sql> {
        vec![
            Sql::new("CREATE TABLE IF NOT EXISTS buyers (subject TEXT, name TEXT)"),
            Sql::new("CREATE TABLE IF NOT EXISTS erasures (subject TEXT)"),
        ]
    }

    fn project(&self, notification: EventNotification<Followed>) -> Result<Vec<Sql>, HandlerError> {
        Ok(match notification.event.payload {
            Followed::Order(OrderEvent::Placed { buyer: Personal::Value { subject, value }, .. }) => {
                let insert = Sql::new("INSERT INTO buyers VALUES ($1, $2)");
                vec![insert.bind(subject.to_string()).bind(value)]
            }
            Followed::Order(_) => Vec::new(),
            Followed::Erased(SubjectErased { subject, .. }) => vec![
                Sql::new("DELETE FROM buyers WHERE subject = $1").bind(subject.to_string()),
                Sql::new("INSERT INTO erasures VALUES ($1)").bind(subject.to_string()),
            ],
        })
    }
}

fn factory(directory: &Path, keys: &SubjectKeys) -> InfrastructureFactory {
    let path = directory.join("events.db");
    let variables = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", path.to_str().unwrap())];
    let builder = InfrastructureFactory::builder("shop").transcoder(transcoder(keys));
    builder.environment(variables).build().unwrap()
}

/// Lets the projection process the log up to its end; returns its buyers and its erasures.
async fn projected(factory: &InfrastructureFactory) -> (Vec<String>, Vec<String>) {
    let log = factory.application_recorder().await.unwrap();
    let end = log.max_notification_id().await.unwrap().unwrap();
    let projector = factory.projector(Buyers).await.unwrap();
    let topics = <Followed as es_core::Event>::TOPICS;
    let mut running = Processor::with_consumer("buyers", log, projector).topics(topics).spawn().unwrap();
    factory.tracking_recorder().await.unwrap().wait("buyers", end, TIMEOUT).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    let select = |query| factory.query(Sql::new(query));
    let buyers = select("SELECT name FROM buyers ORDER BY name").await.unwrap();
    (buyers, select("SELECT subject FROM erasures").await.unwrap())
}

async fn append(log: &Log, numbers: [u128; 2]) {
    let events = numbers.map(|number| placed(name(number, &format!("Buyer {number}"))));
    log.append(ID, Expected::Any, events).await.unwrap();
}

#[tokio::test]
async fn a_projection_is_notified_of_an_erasure_once() {
    let directory = tempfile::tempdir().unwrap();
    let keys = keys(SqliteKeyStore::open(directory.path().join("keys.db")).await.unwrap());
    let factory = factory(directory.path(), &keys);
    let log = factory.event_store().await.unwrap();
    append(&log, [1, 2]).await;
    assert_eq!(projected(&factory).await, (vec!["Buyer 1".to_owned(), "Buyer 2".to_owned()], vec![]));
    let erasure = keys.erase_in(&log, subject(1), "request 4711").await.unwrap();
    // Repeated, also by another process at the same time.
    let again = [keys.erase_in(&log, subject(1), "again"), keys.erase_in(&log, subject(1), "again")];
    for repeated in futures_util::future::join_all(again).await {
        assert_eq!(repeated.unwrap(), erasure);
    }
    let expected = (vec!["Buyer 2".to_owned()], vec![subject(1).to_string()]);
    assert_eq!(projected(&factory).await, expected);
    assert_eq!(projected(&factory).await, expected);
}

/// A store whose process is killed in place of an erasure.
#[derive(Debug)]
struct Killing(SqliteKeyStore);

impl KeyStore for Killing {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, es_core::PersistenceError> {
        self.0.select(subjects).await
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), es_core::PersistenceError> {
        self.0.insert(keys).await
    }

    async fn erase(&self, _: Erasure) -> Result<Erasure, es_core::PersistenceError> {
        std::process::abort();
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, es_core::PersistenceError> {
        self.0.select_keys(after, limit).await
    }

    async fn replace_keys(
        &self,
        replacements: Vec<KeyReplacement>,
    ) -> Result<usize, es_core::PersistenceError> {
        self.0.replace_keys(replacements).await
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, es_core::PersistenceError> {
        self.0.select_erasures(after, limit).await
    }
}

/// The process that is killed; without its variable, nothing.
#[tokio::test]
async fn killed_between_the_steps() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = Path::new(&directory);
    let store = SqliteKeyStore::open(directory.join("keys.db")).await.unwrap();
    let keys = keys(Killing(store));
    let log = factory(directory, &keys).event_store().await.unwrap();
    let _ = keys.erase_in(&log, subject(1), "request 4711").await;
    panic!("not killed");
}

fn kill_between_the_steps(directory: &Path) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "notification::killed_between_the_steps"]).env(DIRECTORY, directory);
    let output = child.output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("not killed"), "{output:?}");
    assert!(!output.status.success(), "{output:?}");
}

#[tokio::test]
async fn an_erasure_that_is_killed_between_its_steps_is_completed() {
    for is_repeated in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteKeyStore::open(directory.path().join("keys.db")).await.unwrap();
        let keys = keys(store.clone());
        let factory = factory(directory.path(), &keys);
        let log = factory.event_store().await.unwrap();
        append(&log, [1, 2]).await;
        kill_between_the_steps(directory.path());
        // The erasure is recorded in the log, and the key is there.
        assert_eq!(projected(&factory).await.1, [subject(1).to_string()]);
        assert_eq!(store.select_keys(None, 10).await.unwrap().len(), 2);
        assert_eq!(keys.erasure(&subject(1)).await.unwrap(), None);

        let erased_by = if is_repeated {
            keys.erase_in(&log, subject(1), "again").await.unwrap().erased_by
        } else {
            complete_erasures(&log, &keys).await;
            keys.erasure(&subject(1)).await.unwrap().unwrap().erased_by
        };
        assert_eq!(erased_by, if is_repeated { "again" } else { "request 4711" });
        assert_eq!(store.select_keys(None, 10).await.unwrap().len(), 1);
        let read = log.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
        assert_eq!(read[0].payload, placed(Personal::Erased { subject: subject(1) }));
        let expected = (vec!["Buyer 2".to_owned()], vec![subject(1).to_string()]);
        assert_eq!(projected(&factory).await, expected);
    }
}

/// A backup has the keys of subjects that were erased since. The log and the current store have the erasures.
#[tokio::test]
async fn a_key_store_that_is_restored_from_a_backup_is_erased_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = SqliteKeyStore::open(path("keys.db")).await.unwrap();
    let eraser = keys(store.clone());
    let log = factory(directory.path(), &eraser).event_store().await.unwrap();
    append(&log, [1, 2]).await;
    std::fs::copy(path("keys.db"), path("backup.db")).unwrap();
    let erasure_before = eraser.erase_in(&log, subject(1), "request 4711").await.unwrap();

    for name in ["by-log.db", "by-list.db"] {
        std::fs::copy(path("backup.db"), path(name)).unwrap();
        let open = async || keys(SqliteKeyStore::open(path(name)).await.unwrap());
        let restored = open().await;
        let log = factory(directory.path(), &restored).event_store().await.unwrap();
        let buyer = |number| placed(self::name(number, &format!("Buyer {number}")));
        assert_eq!(payloads(&log).await, [buyer(1), buyer(2)], "the backup has the key");
        if name == "by-log.db" {
            complete_erasures(&log, &restored).await;
        } else {
            let restored = SqliteKeyStore::open(path(name)).await.unwrap();
            for erasure in store.select_erasures(None, 10).await.unwrap() {
                // With its time.
                assert_eq!(restored.erase(erasure).await.unwrap(), erasure_before);
            }
        }
        let reader = open().await;
        let erasure = reader.erasure(&subject(1)).await.unwrap().unwrap();
        assert_eq!(erasure.erased_by, "request 4711");
        let log = factory(directory.path(), &reader).event_store().await.unwrap();
        assert_eq!(payloads(&log).await, [placed(Personal::Erased { subject: subject(1) }), buyer(2)]);
    }
}

async fn payloads(log: &Log) -> Vec<OrderEvent> {
    let events = log.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    events.into_iter().map(|event| event.payload).collect()
}

/// Runs the consumer that erases the subjects of the log.
async fn complete_erasures(log: &Log, keys: &SubjectKeys) {
    let end = log.recorder().max_notification_id().await.unwrap().unwrap();
    let positions = EventStore::new(PopoProcessRecorder::new(), Mapper::new(JsonTranscoder::new()));
    let handler = {
        let keys = keys.clone();
        move |notification: EventNotification<SubjectErased>| {
            let keys = keys.clone();
            async move {
                let SubjectErased { subject, erased_by } = notification.event.payload;
                keys.erase(subject, erased_by).await?;
                Ok::<_, es_core::PersistenceError>(NewEvents::new())
            }
        }
    };
    let mut running = Processor::for_events("erasures", log, &positions, handler).spawn().unwrap();
    positions.recorder().wait("erasures", end, TIMEOUT).await.unwrap();
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn the_event_of_an_erasure_is_refused_under_another_topic() {
    let mapper = Mapper::new(JsonTranscoder::new());
    let error = mapper.decode_state::<SubjectErased>("shop:Other", "{}").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
}

//! Loading: once for a page, with a bounded cache.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, DomainEvent, EventNotification, EventRange, Expected,
    HandlerError, NotificationBatch, NotificationConsumer, NotificationSelection, PersistenceError,
    uuid::Uuid,
};
use es_factory::{InfrastructureFactory, Sql, SqlProjection};
use es_personal::{
    Erasure, KeyRecord, KeyReplacement, KeyStore, MemoryKeyStore, Personal, Subject, SubjectKeys, WrappedKey,
};
use es_popo::PopoApplicationRecorder;
use futures_util::TryStreamExt;
use tokio::sync::Semaphore;

use crate::{
    OrderEvent, keys, name, orders, placed, ring,
    stores::{Place, Postgres},
    subject, transcoder,
};

const ID: Uuid = Uuid::from_u128(1);
const EVENTS: u128 = 300;

/// Counts the requests to a store, and can hold back the records that it has selected.
#[derive(Clone, Debug)]
struct Counting {
    store: MemoryKeyStore,
    selects: Arc<AtomicUsize>,
    inserts: Arc<AtomicUsize>,
    selected: Arc<Semaphore>,
    /// A permit for each request that returns its records.
    returns: Arc<Semaphore>,
}

impl Counting {
    fn new(store: &MemoryKeyStore) -> Self {
        Self {
            store: store.clone(),
            selects: Arc::default(),
            inserts: Arc::default(),
            selected: Arc::new(Semaphore::new(0)),
            returns: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// Holds back all records.
    fn holding(store: &MemoryKeyStore) -> Self {
        Self { returns: Arc::new(Semaphore::new(0)), ..Self::new(store) }
    }

    fn counts(&self) -> (usize, usize) {
        (self.selects.load(Ordering::Relaxed), self.inserts.load(Ordering::Relaxed))
    }
}

impl KeyStore for Counting {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        self.selects.fetch_add(1, Ordering::Relaxed);
        let records = self.store.select(subjects).await;
        self.selected.add_permits(1);
        self.returns.acquire().await.unwrap().forget();
        records
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        self.inserts.fetch_add(1, Ordering::Relaxed);
        self.store.insert(keys).await
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        self.store.erase(erasure).await
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        self.store.select_keys(after, limit).await
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        self.store.replace_keys(replacements).await
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        self.store.select_erasures(after, limit).await
    }
}

/// An event with a subject of its own, and one with the next.
fn event(number: u128) -> OrderEvent {
    OrderEvent::Renamed { first: name(number, "Alice"), last: name(number + 1, "Smith") }
}

async fn recorded(keys: &SubjectKeys) -> Arc<PopoApplicationRecorder> {
    let log = Arc::new(PopoApplicationRecorder::new());
    orders(&log, keys).append(ID, Expected::New, (1..=EVENTS).map(event)).await.unwrap();
    log
}

#[tokio::test]
async fn keys_are_created_at_once_for_all_events_of_a_batch() {
    let store = Counting::new(&MemoryKeyStore::new());
    let keys = keys(store.clone());
    recorded(&keys).await;
    assert_eq!(store.counts(), (2, 1));
    // They are in memory now.
    recorded(&keys).await;
    assert_eq!(store.counts(), (2, 1));
}

#[tokio::test]
async fn keys_are_loaded_once_for_a_page() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let expected: Vec<_> = (1..=EVENTS).map(event).collect();
    let payloads = |events: Vec<DomainEvent<OrderEvent>>| {
        events.into_iter().map(|event| event.payload).collect::<Vec<_>>()
    };

    let store = Counting::new(&memory);
    let reader = orders(&log, &keys(store.clone()));
    assert_eq!(payloads(reader.get(ID, EventRange::all()).await.unwrap()), expected);
    assert_eq!(store.counts(), (1, 0), "get");

    let store = Counting::new(&memory);
    let reader = orders(&log, &keys(store.clone()));
    let streamed = reader.stream(ID, EventRange::all()).try_collect().await.unwrap();
    assert_eq!(payloads(streamed), expected);
    assert_eq!(store.counts(), (1, 0), "stream");

    let store = Counting::new(&memory);
    let mut subscription = orders(&log, &keys(store.clone())).subscribe::<OrderEvent>();
    for expected in expected {
        assert_eq!(subscription.next().await.unwrap().unwrap().event.payload, expected);
    }
    assert_eq!(store.counts(), (1, 0), "subscribe");
}

#[tokio::test]
async fn pages_of_more_subjects_than_the_cache_holds_are_read() {
    let memory = MemoryKeyStore::new();
    let capacity = NonZeroUsize::new(3).unwrap();
    let bounded = || SubjectKeys::with_cache(memory.clone(), ring(), capacity, SubjectKeys::DEFAULT_LIFETIME);
    let log = recorded(&bounded()).await;
    let read = orders(&log, &bounded()).get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    assert!(read.into_iter().map(|event| event.payload).eq((1..=EVENTS).map(event)));
}

/// The bound is exact: the oldest key makes room for another one.
#[tokio::test]
async fn a_cache_holds_as_many_keys_as_its_capacity() {
    let memory = MemoryKeyStore::new();
    let log = Arc::new(PopoApplicationRecorder::new());
    let writer = orders(&log, &keys(memory.clone()));
    for number in 1..=4 {
        let event = placed(name(number, "Alice"));
        writer.append(Uuid::from_u128(number), Expected::New, [event]).await.unwrap();
    }
    let store = Counting::new(&memory);
    let capacity = NonZeroUsize::new(3).unwrap();
    let keys = SubjectKeys::with_cache(store.clone(), ring(), capacity, SubjectKeys::DEFAULT_LIFETIME);
    let reader = orders(&log, &keys);
    for (number, selects) in [(1, 1), (2, 2), (3, 3), (1, 3), (2, 3), (4, 4), (2, 4), (3, 4), (1, 5), (2, 6)]
    {
        reader.get::<OrderEvent>(Uuid::from_u128(number), EventRange::all()).await.unwrap();
        assert_eq!(store.counts(), (selects, 0), "subject {number}");
    }
}

/// The capacity is at least the number of subjects of one event: otherwise the requests end with an error.
#[tokio::test]
async fn an_event_with_more_subjects_than_the_cache_holds_is_an_error() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let store = Counting::new(&memory);
    let keys =
        SubjectKeys::with_cache(store.clone(), ring(), NonZeroUsize::MIN, SubjectKeys::DEFAULT_LIFETIME);
    let orders = orders(&log, &keys);
    let read = orders.get::<OrderEvent>(ID, EventRange::all()).await.map(drop);
    let written = orders.append(Uuid::from_u128(2), Expected::New, [event(1)]).await.map(drop);
    for error in [read.unwrap_err(), written.unwrap_err()] {
        assert!(error.is_unloaded(), "{error}");
    }
    assert!(store.counts().0 < 100, "{:?}", store.counts());
}

/// The record that a request has selected before the erasure, and returns after it, is not used.
#[tokio::test]
async fn an_erasure_while_the_key_is_loaded_wins() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let store = Counting::holding(&memory);
    let keys = keys(store.clone());
    let reader = orders(&log, &keys);
    let reading =
        tokio::spawn(async move { reader.get::<OrderEvent>(ID, EventRange::all().limit(1)).await.unwrap() });
    store.selected.acquire().await.unwrap().forget();
    keys.erase(subject(1), "test").await.unwrap();
    store.returns.add_permits(1);
    let OrderEvent::Renamed { first, last } = &reading.await.unwrap()[0].payload else { panic!() };
    assert_eq!((first.is_erased(), last), (true, &name(2, "Smith")));
    assert_eq!(store.counts(), (1, 0));
}

/// An erasure before the new key is stored, and one between that and its reading.
#[tokio::test]
async fn an_erasure_while_the_first_key_is_created_wins() {
    for steps in [0, 1] {
        let memory = MemoryKeyStore::new();
        let store = Counting::holding(&memory);
        let log = Arc::new(PopoApplicationRecorder::new());
        let writer = orders(&log, &keys(store.clone()));
        let writing =
            tokio::spawn(async move { writer.append(ID, Expected::New, [placed(name(1, "Alice"))]).await });
        for _ in 0..steps {
            store.selected.acquire().await.unwrap().forget();
            store.returns.add_permits(1);
        }
        store.selected.acquire().await.unwrap().forget();
        // Of another process.
        keys(memory.clone()).erase(subject(1), "test").await.unwrap();
        store.returns.add_permits(2);
        let written = writing.await.unwrap();
        let selected = memory.select(&[subject(1)]).await.unwrap();
        assert!(matches!(selected[..], [KeyRecord::Erased(_)]));
        // The second request has selected the key already: the value is lost when the key expires.
        if steps == 0 {
            assert!(written.unwrap_err().to_string().contains("is erased"));
        }
        let read = orders(&log, &keys(memory)).get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
        for event in read {
            assert_eq!(event.payload, placed(Personal::Erased { subject: subject(1) }));
        }
    }
}

/// A request that is dropped, because its caller gave up, does not leave its subjects unloaded.
#[tokio::test]
async fn keys_whose_loading_was_cancelled_are_loaded_by_the_next_call() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let store = Counting::holding(&memory);
    let reader = orders(&log, &keys(store.clone()));
    tokio::select! {
        _ = reader.get::<OrderEvent>(ID, EventRange::all()) => panic!("not held back"),
        selected = store.selected.acquire() => selected.unwrap().forget(),
    }
    store.returns.add_permits(1);
    let read = reader.get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    assert!(read.into_iter().map(|event| event.payload).eq((1..=EVENTS).map(event)));
    assert_eq!(store.counts(), (2, 0));
}

/// Keeps the first words of the statements of sqlx, without those of transactions.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Statements {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            if field.name() == "summary" {
                let text = format!("{value:?}");
                let word = text.trim_matches('"').split(' ').next().unwrap_or_default();
                if word != "COMMIT" {
                    self.0.lock().unwrap().push(word.to_owned());
                }
            }
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// One statement for all subjects of a page, whose number the store does not show.
#[tokio::test]
async fn postgresql_loads_the_keys_of_a_page_by_one_statement() {
    let Some(place) = Postgres::create().await else { return };
    let writer = keys(place.open().await);
    let reader = keys(place.open().await);
    let statements = Statements::default();
    let _subscribed = tracing::subscriber::set_default(statements.clone());
    let log = recorded(&writer).await;
    let executed = || std::mem::take(&mut *statements.0.lock().unwrap());
    assert_eq!(executed(), ["SELECT", "INSERT", "SELECT"]);
    let read = orders(&log, &reader).get::<OrderEvent>(ID, EventRange::all()).await.unwrap();
    assert_eq!(read.len(), EVENTS as usize);
    assert_eq!(executed(), ["SELECT"]);
}

#[tokio::test]
async fn keys_that_expire_at_once_are_an_error() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let capacity = NonZeroUsize::new(1_000).unwrap();
    let expired = SubjectKeys::with_cache(memory, ring(), capacity, Duration::ZERO);
    let error = orders(&log, &expired).get::<OrderEvent>(ID, EventRange::all()).await.unwrap_err();
    assert!(error.is_unloaded());
}

#[tokio::test]
async fn a_synchronous_call_fails_until_the_keys_are_loaded() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let orders = orders(&log, &keys(memory));
    let stored = log.select_events(ID, EventRange::all().limit(1)).await.unwrap();
    let error = orders.mapper().to_domain_event::<OrderEvent>(&stored[0]).unwrap_err();
    assert!(error.is_unloaded());
    let error =
        orders.mapper().to_stored_event(&DomainEvent::new(ID, 1, placed(name(1, "Bob")))).unwrap_err();
    assert!(error.is_unloaded());
    let read = orders.mapper().read_event::<OrderEvent>(&stored[0]).await.unwrap();
    assert_eq!(orders.mapper().to_domain_event::<OrderEvent>(&stored[0]).unwrap(), read);
}

/// Keeps a table of the last names.
struct Names;

impl SqlProjection for Names {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![Sql::new("CREATE TABLE IF NOT EXISTS names (name TEXT)")]
    }

    fn project(&self, notification: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        let OrderEvent::Renamed { last, .. } = notification.event.payload else { return Ok(Vec::new()) };
        Ok(vec![Sql::new("INSERT INTO names VALUES ($1)").bind(last.into_value())])
    }
}

#[tokio::test]
async fn keys_are_loaded_once_for_a_batch_of_a_projection() {
    let memory = MemoryKeyStore::new();
    let log = recorded(&keys(memory.clone())).await;
    let store = Counting::new(&memory);
    let factory = InfrastructureFactory::builder("shop")
        .transcoder(transcoder(&keys(store.clone())))
        .environment([("PERSISTENCE_MODULE", "eventsourcing.sqlite"), ("SQLITE_DBNAME", ":memory:")])
        .build()
        .unwrap();
    let mut projector = factory.projector(Names).await.unwrap();
    let notifications = log.select_notifications(NotificationSelection::new(100)).await.unwrap();
    let batch = NotificationBatch {
        application_name: "names",
        notifications: &notifications,
        position: 100,
        expected_position: None,
    };
    let handled = projector.process(batch).await.unwrap();
    assert!(handled > 0);
    let names: Vec<String> = factory.query(Sql::new("SELECT name FROM names")).await.unwrap();
    assert_eq!(names, vec!["Smith"; handled]);
    assert_eq!(store.counts(), (1, 0));
}

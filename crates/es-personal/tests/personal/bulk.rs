//! Loading: once for a page, with a bounded cache.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
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
    Erasure, KeyRecord, KeyReplacement, KeyStore, MemoryKeyStore, Subject, SubjectKeys, WrappedKey,
};
use es_popo::PopoApplicationRecorder;
use futures_util::TryStreamExt;

use crate::{OrderEvent, keys, name, orders, placed, ring, transcoder};

const ID: Uuid = Uuid::from_u128(1);
const EVENTS: u128 = 300;

/// Counts the requests to a store.
#[derive(Clone, Debug)]
struct Counting {
    store: MemoryKeyStore,
    selects: Arc<AtomicUsize>,
    inserts: Arc<AtomicUsize>,
}

impl Counting {
    fn new(store: &MemoryKeyStore) -> Self {
        Self { store: store.clone(), selects: Arc::default(), inserts: Arc::default() }
    }

    fn counts(&self) -> (usize, usize) {
        (self.selects.load(Ordering::Relaxed), self.inserts.load(Ordering::Relaxed))
    }
}

impl KeyStore for Counting {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        self.selects.fetch_add(1, Ordering::Relaxed);
        self.store.select(subjects).await
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

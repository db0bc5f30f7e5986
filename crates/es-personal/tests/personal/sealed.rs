//! Events that are sealed as a whole.

use std::{convert::Infallible, sync::Arc};

use es_aggregate::{Aggregate, Repository, SnapshotPolicy};
use es_core::{
    AggregateRecorder, DomainEvent, ErrorKind, EventRange, EventStore, Expected, Mapper, Metadata,
    PersistenceError, Snapshot, SnapshotState, uuid::Uuid,
};
use es_derive::Event;
use es_factory::{InfrastructureFactory, Sql, SqlProjection};
use es_personal::{MemoryKeyStore, Personal, Subject, SubjectKeys};
use es_popo::{PopoAggregateRecorder, PopoApplicationRecorder};
use es_process::Processor;
use es_transcode::JsonTranscoder;
use serde::{Deserialize, Serialize};

use crate::{
    keys, name,
    stores::{Place, on_each_store},
    subject,
};

on_each_store!(
    a_sealed_event_has_no_plaintext_and_is_read_by_another_process,
    sealed_events_of_an_erased_subject_are_decoded_by_the_function,
    an_aggregate_folds_sealed_events_after_an_erasure,
    an_erasure_of_another_subject_within_a_sealed_event_keeps_the_rest,
);

const ID: Uuid = Uuid::from_u128(1);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Customer")]
enum CustomerEvent {
    #[event(version = 2, upcast(1 = RegisteredV1), subject = customer, erased = Self::erased)]
    Registered {
        #[event(registered)]
        customer: Uuid,
        name: String,
        adviser: Option<Personal<String>>,
    },
    #[event(subject = person.id, erased = |customer| Self::Forgotten { customer })]
    Moved(Moved),
    Ordered {
        item: String,
    },
    Forgotten {
        customer: Subject,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moved {
    person: Person,
    street: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    id: String,
}

/// The layout before there was an adviser, of events that were not sealed.
#[derive(Deserialize)]
struct RegisteredV1 {
    #[serde(with = "es_transcode::serde_with::As::<es_transcode::Registered>")]
    customer: Uuid,
    full_name: String,
}

impl From<RegisteredV1> for CustomerEvent {
    fn from(RegisteredV1 { customer, full_name }: RegisteredV1) -> Self {
        Self::Registered { customer, name: full_name, adviser: None }
    }
}

impl CustomerEvent {
    fn erased(customer: Subject) -> Self {
        Self::Forgotten { customer }
    }
}

/// An event that is a struct.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Noted", subject = state, erased = Noted::erased)]
struct Noted {
    // The name of a parameter in the derived code.
    state: Subject,
    #[serde(default)]
    text: String,
}

impl Noted {
    fn erased(state: Subject) -> Self {
        Self { state, text: String::new() }
    }
}

type Customers = EventStore<Arc<PopoApplicationRecorder>, JsonTranscoder>;

fn transcoder(keys: &SubjectKeys) -> JsonTranscoder {
    let mut transcoder = JsonTranscoder::new();
    keys.register::<String>(&mut transcoder);
    keys.register_events(&mut transcoder);
    transcoder
}

fn customers(log: &Arc<PopoApplicationRecorder>, keys: &SubjectKeys) -> Customers {
    EventStore::new(Arc::clone(log), Mapper::new(transcoder(keys)))
}

fn registered(number: u128) -> CustomerEvent {
    CustomerEvent::Registered {
        customer: Uuid::from_u128(number),
        name: "Alice".to_owned(),
        adviser: Some(name(9, "Nine")),
    }
}

fn moved(number: u128) -> CustomerEvent {
    let person = Person { id: subject(number).to_string() };
    CustomerEvent::Moved(Moved { person, street: "Rue 1".to_owned() })
}

fn ordered() -> CustomerEvent {
    CustomerEvent::Ordered { item: "book".to_owned() }
}

fn forgotten(number: u128) -> CustomerEvent {
    CustomerEvent::Forgotten { customer: subject(number) }
}

/// The message with those of its causes.
fn whole_message(error: &PersistenceError) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn read(customers: &Customers) -> Vec<CustomerEvent> {
    let events = customers.get(ID, EventRange::all()).await.unwrap();
    events.into_iter().map(|event| event.payload).collect()
}

async fn a_sealed_event_has_no_plaintext_and_is_read_by_another_process(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let writer = customers(&log, &keys(place.open().await));
    let metadata = Metadata::new().with_correlation_id("request 1");
    let events = [registered(1), moved(2), ordered()];
    let with_versions = events
        .iter()
        .zip(1..)
        .map(|(event, version)| DomainEvent::new(ID, version, event.clone()).with_metadata(metadata.clone()));
    let recorded: Vec<_> = with_versions.collect();
    writer.put(&recorded).await.unwrap();

    let stored = log.select_events(ID, EventRange::all()).await.unwrap();
    let states = stored.iter().map(|event| String::from_utf8(event.state.to_vec()).unwrap());
    let states: Vec<_> = states.collect();
    for text in ["Alice", "Nine", "Rue", "name", "street"] {
        assert!(!states[..2].concat().contains(text), "{states:?}");
    }
    let state: serde_json::Value = serde_json::from_str(&states[0]).unwrap();
    let attributes: Vec<_> = state.as_object().unwrap().keys().collect();
    assert_eq!(attributes, ["_metadata_", "_personal_", "class_version", "timestamp"]);
    assert_eq!(state["class_version"], 2);
    assert_eq!(state["_personal_"]["_type_"], "personal");
    assert_eq!(state["_personal_"]["_data_"]["subject"], subject(1).as_str());

    let reader = customers(&log, &keys(place.open().await));
    assert_eq!(reader.get::<CustomerEvent>(ID, EventRange::all()).await.unwrap(), recorded);
    // By now the keys are in memory.
    let decoded = reader.mapper().to_domain_event::<CustomerEvent>(&stored[0]).unwrap();
    assert_eq!((decoded.metadata, decoded.payload), (metadata, registered(1)));
}

async fn sealed_events_of_an_erased_subject_are_decoded_by_the_function(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let eraser = keys(place.open().await);
    let writer = customers(&log, &eraser);
    writer.append(ID, Expected::New, [registered(1), moved(2), ordered(), moved(1)]).await.unwrap();
    let about = subject(1);
    let noted = Noted { state: about.clone(), text: "called".to_owned() };
    let other = Uuid::from_u128(2);
    writer.append(other, Expected::New, [noted]).await.unwrap();
    eraser.erase(about.clone(), "test").await.unwrap();

    let expected = [forgotten(1), moved(2), ordered(), forgotten(1)];
    assert_eq!(read(&writer).await, expected);
    let reader = customers(&log, &keys(place.open().await));
    assert_eq!(read(&reader).await, expected);
    let mut subscription = reader.subscribe::<CustomerEvent>();
    for expected in expected {
        assert_eq!(subscription.next().await.unwrap().unwrap().event.payload, expected);
    }
    let notes = reader.get::<Noted>(other, EventRange::all()).await.unwrap();
    assert_eq!(notes[0].payload, Noted::erased(about));
    // What the function returns is an event like others, but none of the erased subject's.
    let error = writer.append(ID, Expected::Any, [registered(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    writer.append(ID, Expected::Any, [forgotten(1)]).await.unwrap();
}

/// Keeps what it may not know after an erasure as personal values.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Customer {
    name: Option<Personal<String>>,
    items: Vec<String>,
    is_forgotten: bool,
}

impl Aggregate for Customer {
    type Event = CustomerEvent;

    fn apply(&mut self, event: &CustomerEvent) {
        match event {
            CustomerEvent::Registered { customer, name, .. } => {
                self.name = Some(Personal::new(*customer, name.clone()));
            }
            CustomerEvent::Ordered { item } => self.items.push(item.clone()),
            CustomerEvent::Forgotten { .. } => self.is_forgotten = true,
            CustomerEvent::Moved(_) => {}
        }
    }
}

impl SnapshotState for Customer {
    const AGGREGATE_TOPIC: &str = "shop:Customer";
}

async fn an_aggregate_folds_sealed_events_after_an_erasure(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let snapshots = Arc::new(PopoAggregateRecorder::new());
    let eraser = keys(place.open().await);
    let snapshot_store =
        |keys: &SubjectKeys| EventStore::new(Arc::clone(&snapshots), Mapper::new(transcoder(keys)));
    let repository = |keys: &SubjectKeys| {
        Repository::<Customer, _, _>::new(customers(&log, keys))
            .snapshots(snapshot_store(keys), SnapshotPolicy::every(2))
    };
    let first = repository(&eraser);
    let record = |event: CustomerEvent| move |_: &Customer| Ok::<_, Infallible>(vec![event.clone()]);
    for event in [registered(1), ordered()] {
        first.execute(ID, Metadata::new(), record(event)).await.unwrap();
    }
    let store = snapshot_store(&eraser);
    tokio::time::timeout(std::time::Duration::from_secs(60), async {
        while store.get::<Snapshot<Customer>>(ID, EventRange::all()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    eraser.erase(subject(1), "test").await.unwrap();

    let name = Some(Personal::Erased { subject: subject(1) });
    let items = vec!["book".to_owned()];
    let other = keys(place.open().await);
    // From the snapshot, whose state has the name as a personal value.
    let loaded = repository(&other).load(ID).await.unwrap();
    assert_eq!(loaded.state, Customer { name, items: items.clone(), is_forgotten: false });
    // From the events.
    let without_snapshots = Repository::<Customer, _, _>::new(customers(&log, &other));
    let loaded = without_snapshots.load(ID).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (2, Customer { name: None, items, is_forgotten: true }));
}

async fn an_erasure_of_another_subject_within_a_sealed_event_keeps_the_rest(place: impl Place) {
    let log = Arc::new(PopoApplicationRecorder::new());
    let eraser = keys(place.open().await);
    let customers = customers(&log, &eraser);
    customers.append(ID, Expected::New, [registered(1)]).await.unwrap();
    eraser.erase(subject(9), "test").await.unwrap();
    let adviser = Some(Personal::Erased { subject: subject(9) });
    let CustomerEvent::Registered { customer, name, .. } = registered(1) else { panic!() };
    assert_eq!(read(&customers).await, [CustomerEvent::Registered { customer, name, adviser }]);
    eraser.erase(subject(1), "test").await.unwrap();
    assert_eq!(read(&customers).await, [forgotten(1)]);
}

#[tokio::test]
async fn events_of_older_class_versions_and_from_before_the_sealing_are_read() {
    let keys = keys(MemoryKeyStore::new());
    let mapper = Mapper::new(transcoder(&keys));
    let timestamp = r#""timestamp":{"_type_":"datetime_iso","_data_":"1970-01-01T00:00:00+00:00"}"#;
    let customer = r#""customer":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000001"}"#;
    let decode = |attributes: &str| {
        let state = format!("{{{timestamp},{attributes}}}");
        mapper.decode_state::<CustomerEvent>("shop:Customer.Registered", state).map(|event| event.payload)
    };
    let plain =
        CustomerEvent::Registered { customer: Uuid::from_u128(1), name: "Alice".to_owned(), adviser: None };
    assert_eq!(decode(&format!(r#"{customer},"full_name":"Alice""#)).unwrap(), plain);
    let attributes = format!(r#"{customer},"name":"Alice","adviser":null,"class_version":2"#);
    assert_eq!(decode(&attributes).unwrap(), plain);

    // A sealed state of class version 1.
    #[derive(Event)]
    #[event(topic = "shop:Customer.Registered", subject = customer, erased = |_| Self::none())]
    struct SealedV1 {
        #[event(registered)]
        customer: Uuid,
        full_name: String,
    }
    impl SealedV1 {
        fn none() -> Self {
            Self { customer: Uuid::nil(), full_name: String::new() }
        }
    }
    let old = SealedV1 { customer: Uuid::from_u128(1), full_name: "Alice".to_owned() };
    let [stored] = mapper.write_events(&[DomainEvent::new(ID, 1, old)]).await.unwrap().try_into().unwrap();
    assert!(!String::from_utf8_lossy(&stored.state).contains("full_name"));
    assert_eq!(mapper.read_event::<CustomerEvent>(&stored).await.unwrap().payload, plain);
    keys.erase(subject(1), "test").await.unwrap();
    assert_eq!(mapper.read_event::<CustomerEvent>(&stored).await.unwrap().payload, forgotten(1));
}

#[tokio::test]
async fn invalid_subjects_and_missing_transcodings_are_errors() {
    let log = Arc::new(PopoApplicationRecorder::new());
    let customers = customers(&log, &keys(MemoryKeyStore::new()));
    let person = Person { id: String::new() };
    let moved = CustomerEvent::Moved(Moved { person, street: "Rue 1".to_owned() });
    let error = customers.append(ID, Expected::New, [moved]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let message = whole_message(&error);
    assert!(message.contains("a data subject is empty"), "{message}");

    let unregistered = Mapper::new(JsonTranscoder::new());
    let error = unregistered.write_events(&[DomainEvent::new(ID, 1, registered(1))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(!error.to_string().contains("Alice"), "{error}");
}

#[tokio::test]
async fn an_attribute_that_does_not_match_is_an_error_without_its_value() {
    let keys = keys(MemoryKeyStore::new());
    let mapper = Mapper::new(transcoder(&keys));
    #[derive(Event)]
    #[event(topic = "shop:Noted", subject = state, erased = |state| Self { state, text: Vec::new() })]
    struct Other {
        state: Subject,
        text: Vec<u8>,
    }
    let noted = Noted { state: subject(1), text: "called".to_owned() };
    let [stored] = mapper.write_events(&[DomainEvent::new(ID, 1, noted)]).await.unwrap().try_into().unwrap();
    let error = mapper.read_event::<Other>(&stored).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let message = whole_message(&error);
    assert!(message.contains("invalid type: string") && !message.contains("called"), "{message}");
}

/// Keeps a table of names and of forgotten customers.
struct Names;

impl SqlProjection for Names {
    type Event = CustomerEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![Sql::new("CREATE TABLE IF NOT EXISTS names (name TEXT)")]
    }

    fn project(
        &self,
        notification: es_core::EventNotification<CustomerEvent>,
    ) -> Result<Vec<Sql>, es_core::HandlerError> {
        let name = match notification.event.payload {
            CustomerEvent::Registered { name, .. } => name,
            CustomerEvent::Forgotten { customer } => customer.to_string(),
            _ => return Ok(Vec::new()),
        };
        Ok(vec![Sql::new("INSERT INTO names VALUES ($1)").bind(name)])
    }
}

#[tokio::test]
async fn a_projection_gets_sealed_and_erased_events() {
    let log = Arc::new(PopoApplicationRecorder::new());
    let store = MemoryKeyStore::new();
    let eraser = keys(store.clone());
    let writer = customers(&log, &eraser);
    writer.append(ID, Expected::New, [registered(1), registered(2)]).await.unwrap();
    eraser.erase(subject(2), "test").await.unwrap();
    let factory = InfrastructureFactory::builder("shop")
        .transcoder(transcoder(&keys(store)))
        .environment([("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", ":memory:")])
        .build()
        .unwrap();
    let projector = factory.projector(Names).await.unwrap();
    let processor = Processor::with_consumer("names", Arc::clone(&log), projector).topics(Names::topics());
    let mut running = processor.spawn().unwrap();
    let recorder = factory.tracking_recorder().await.unwrap();
    let timeout = std::time::Duration::from_secs(60);
    es_core::TrackingRecorderExt::wait(&recorder, "names", 2, timeout).await.unwrap();
    running.stop();
    running.join().await.unwrap();
    let names: Vec<String> = factory.query(Sql::new("SELECT name FROM names")).await.unwrap();
    assert_eq!(names, ["Alice".to_owned(), subject(2).to_string()]);
}

impl Names {
    fn topics() -> &'static [es_core::Topic] {
        <CustomerEvent as es_core::Event>::TOPICS
    }
}

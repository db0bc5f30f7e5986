//! Handlers of domain events: what they receive, and what is recorded of the events that they return.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::{
    convert::Infallible,
    future::ready,
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, DomainEvent, DynProcessRecorder, EventNotification,
    EventRange, EventStore, Expected, HandlerError, Mapper, Metadata, Notification, NotificationConsumer,
    PersistenceError, StoredEvent, Topic, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use es_derive::Event;
use es_popo::PopoProcessRecorder;
use es_process::{EventHandler, NewEvents, Processor, ProcessorError};
use es_transcode::JsonTranscoder;

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

const STOCK: Uuid = Uuid::from_u128(77);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed { pieces: u32 },
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Stock")]
enum StockEvent {
    Reserved { pieces: u32 },
    Released,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Invoice")]
struct Invoiced {
    pieces: u32,
}

type Store = EventStore<PopoProcessRecorder, JsonTranscoder>;

fn store() -> Store {
    EventStore::new(PopoProcessRecorder::new(), Mapper::new(JsonTranscoder::new()))
}

fn order(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Runs a processor until it has processed the notification.
async fn run_until<R, C>(mut processor: Processor<R, C>, recorder: &impl TrackingRecorder, id: i64)
where
    R: ApplicationRecorder + Clone,
    C: NotificationConsumer,
{
    tokio::select! {
        result = processor.run() => panic!("the processor ended: {result:?}"),
        waited = recorder.wait("fulfilment", id, TOO_LONG) => waited.unwrap(),
    }
}

#[tokio::test]
async fn a_handler_gets_the_events_of_its_type_and_returns_events_of_several_types() {
    let (orders, stock) = (store(), store());
    orders.append(order(1), Expected::New, [OrderEvent::Placed { pieces: 2 }]).await.unwrap();
    // Of a type that the handler does not know: it is not selected.
    orders.append(order(9), Expected::New, [Invoiced { pieces: 2 }]).await.unwrap();
    let handler = async |notification: EventNotification<OrderEvent>| {
        let EventNotification { id, event, .. } = notification;
        assert_eq!((id, event.originator_version), (1, 1));
        let OrderEvent::Placed { pieces } = event.payload else { panic!("{event:?}") };
        let mut new = NewEvents::new();
        new.push(DomainEvent::new(STOCK, 1, StockEvent::Reserved { pieces }));
        new.push(DomainEvent::new(event.originator_id, 1, Invoiced { pieces }));
        Ok::<_, PersistenceError>(new)
    };
    let processor = Processor::for_events("fulfilment", &orders, &stock, handler);
    run_until(processor, stock.recorder(), 2).await;
    let reserved = stock.get::<StockEvent>(STOCK, EventRange::all()).await.unwrap();
    assert_eq!(reserved[0].payload, StockEvent::Reserved { pieces: 2 });
    let invoiced = stock.get::<Invoiced>(order(1), EventRange::all()).await.unwrap();
    assert_eq!(invoiced[0].payload, Invoiced { pieces: 2 });
    assert_eq!(stock.recorder().max_notification_id().await.unwrap(), Some(2));
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(transparent)]
enum ShopEvent {
    Order(OrderEvent),
    Stock(StockEvent),
}

#[tokio::test]
async fn a_handler_of_several_event_types_gets_them_in_the_order_of_the_log() {
    let (shop, invoices) = (store(), store());
    shop.append(order(1), Expected::New, [OrderEvent::Placed { pieces: 2 }]).await.unwrap();
    shop.append(order(9), Expected::New, [Invoiced { pieces: 9 }]).await.unwrap();
    shop.append(STOCK, Expected::New, [StockEvent::Released]).await.unwrap();
    shop.append(order(1), Expected::Version(1), [OrderEvent::Cancelled]).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let handler = {
        let seen = Arc::clone(&seen);
        move |EventNotification { event, .. }: EventNotification<ShopEvent>| {
            seen.lock().unwrap().push(event.payload);
            ready(Ok::<_, Infallible>(NewEvents::new()))
        }
    };
    run_until(Processor::for_events("fulfilment", &shop, &invoices, handler), invoices.recorder(), 4).await;
    let placed = ShopEvent::Order(OrderEvent::Placed { pieces: 2 });
    let rest = [ShopEvent::Stock(StockEvent::Released), ShopEvent::Order(OrderEvent::Cancelled)];
    assert_eq!(*seen.lock().unwrap(), [[placed].as_slice(), &rest].concat());
}

/// Reserves for each order, in an aggregate of its own, with the metadata.
async fn reserve(
    notification: EventNotification<OrderEvent>,
    metadata: Metadata,
) -> Result<NewEvents<JsonTranscoder>, Infallible> {
    let event = DomainEvent::new(notification.event.originator_id, 1, StockEvent::Released);
    Ok([event.with_metadata(metadata)].into_iter().collect())
}

#[tokio::test]
async fn new_events_get_correlation_and_causation_ids() {
    let (orders, stock) = (store(), store());
    let request = Metadata::new().with_correlation_id("request 5").with_causation_id("command 6");
    let placed = [OrderEvent::Placed { pieces: 2 }];
    for (number, metadata) in [(1, request.with_actor("alice")), (2, Metadata::new())] {
        orders.append_with_metadata(order(number), Expected::New, &metadata, placed.clone()).await.unwrap();
    }
    let handler = async |notification| reserve(notification, Metadata::new().with("shop", "north")).await;
    run_until(Processor::for_events("fulfilment", &orders, &stock, handler), stock.recorder(), 2).await;
    let causations = [1, 2].map(|number| format!("{}/1", order(number)));
    for (number, correlation) in [(1, "request 5"), (2, causations[1].as_str())] {
        let new = stock.get::<StockEvent>(order(number), EventRange::all()).await.unwrap();
        let metadata = &new[0].metadata;
        assert_eq!(metadata.correlation_id(), Some(correlation));
        assert_eq!(metadata.causation_id(), Some(causations[number as usize - 1].as_str()));
        assert_eq!((metadata.get("shop"), metadata.actor()), (Some("north"), None));
    }
}

#[tokio::test]
async fn metadata_that_the_handler_sets_is_kept() {
    let (orders, stock) = (store(), store());
    orders.append(order(1), Expected::New, [OrderEvent::Cancelled]).await.unwrap();
    let own = Metadata::new().with_correlation_id("own").with_causation_id("command 7");
    let handler = {
        let own = own.clone();
        move |notification| reserve(notification, own.clone())
    };
    run_until(Processor::for_events("fulfilment", &orders, &stock, handler), stock.recorder(), 1).await;
    let new = stock.get::<StockEvent>(order(1), EventRange::all()).await.unwrap();
    assert_eq!(new[0].metadata, own);
}

/// A handler that reads the aggregate that it writes to, and returns nothing if there is nothing to release.
fn reserving(stock: &Store) -> impl EventHandler<OrderEvent, JsonTranscoder> + 'static {
    let stock = stock.clone();
    move |notification: EventNotification<OrderEvent>| {
        let stock = stock.clone();
        async move {
            let recorded = stock.get::<StockEvent>(STOCK, EventRange::all()).await?;
            let version = recorded.len() as i64 + 1;
            let event = match (notification.event.payload, recorded.last().map(|event| &event.payload)) {
                (OrderEvent::Placed { pieces }, _) => StockEvent::Reserved { pieces },
                (OrderEvent::Cancelled, Some(StockEvent::Reserved { .. })) => StockEvent::Released,
                (OrderEvent::Cancelled, _) => return Ok(NewEvents::new()),
            };
            Ok::<_, PersistenceError>([DomainEvent::new(STOCK, version, event)].into_iter().collect())
        }
    }
}

/// In one commit with the reservation, the cancellation would find nothing to release, and the stock would
/// stay reserved.
#[tokio::test]
async fn a_handler_reads_the_events_of_earlier_notifications() {
    let (orders, stock) = (store(), store());
    let events = [OrderEvent::Cancelled, OrderEvent::Placed { pieces: 2 }, OrderEvent::Cancelled];
    orders.append(order(1), Expected::New, events).await.unwrap();
    let processor = Processor::for_events("fulfilment", &orders, &stock, reserving(&stock));
    run_until(processor, stock.recorder(), 3).await;
    let recorded = stock.get::<StockEvent>(STOCK, EventRange::all()).await.unwrap();
    let payloads: Vec<_> = recorded.into_iter().map(|event| event.payload).collect();
    assert_eq!(payloads, [StockEvent::Reserved { pieces: 2 }, StockEvent::Released]);
}

#[tokio::test]
async fn events_of_several_notifications_can_be_committed_together() {
    let (orders, stock) = (store(), store());
    for number in 1..=4 {
        orders.append(order(number), Expected::New, [OrderEvent::Cancelled]).await.unwrap();
    }
    let (downstream, mut seen) = (stock.clone(), Vec::new());
    let (send, mut received) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |notification| {
        let (downstream, send) = (downstream.clone(), send.clone());
        async move {
            send.send(downstream.recorder().max_notification_id().await?).unwrap();
            let Ok(new) = reserve(notification, Metadata::new()).await;
            Ok::<_, PersistenceError>(new)
        }
    };
    let processor = Processor::for_events("fulfilment", &orders, &stock, handler);
    run_until(processor.events_per_commit(NonZeroUsize::new(2).unwrap()), stock.recorder(), 4).await;
    while let Ok(id) = received.try_recv() {
        seen.push(id);
    }
    assert_eq!(seen, [None, None, Some(2), Some(2)]);
}

/// A handler with state of its own, for recorders that are chosen at run time.
struct Numbering {
    version: i64,
}

#[derive(Debug, thiserror::Error)]
#[error("no order is cancelled")]
struct NotCancelled;

impl EventHandler<OrderEvent, JsonTranscoder> for Numbering {
    type Error = NotCancelled;

    async fn handle(
        &mut self,
        notification: EventNotification<OrderEvent>,
    ) -> Result<NewEvents<JsonTranscoder>, NotCancelled> {
        let OrderEvent::Placed { pieces } = notification.event.payload else { return Err(NotCancelled) };
        self.version += 1;
        let mut new = NewEvents::new();
        new.push(DomainEvent::new(STOCK, self.version, StockEvent::Reserved { pieces }));
        Ok(new)
    }

    async fn park(
        &mut self,
        notification: Notification,
        failure: HandlerError,
    ) -> Result<NewEvents<JsonTranscoder>, HandlerError> {
        if failure.is::<NotCancelled>() {
            return Err(failure);
        }
        assert!(failure.to_string().contains("version 1 of originator"), "{failure}");
        let mut new = NewEvents::new();
        new.push(DomainEvent::new(Uuid::from_u128(notification.id as u128), 1, StockEvent::Released));
        Ok(new)
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_can_be_parked() {
    let recorder: Arc<dyn DynProcessRecorder> = Arc::new(PopoProcessRecorder::new());
    // One store for both: the processor follows the log that it writes to.
    let store = EventStore::new(recorder.clone(), Mapper::new(JsonTranscoder::new()));
    let damaged = StoredEvent {
        originator_id: order(3),
        originator_version: 1,
        topic: Topic::from_static("shop:Order.Placed"),
        state: Bytes::from_static(b"damaged"),
    };
    recorder.insert_events(vec![damaged]).await.unwrap();
    store.append(order(4), Expected::New, [OrderEvent::Placed { pieces: 3 }]).await.unwrap();
    store.append(order(5), Expected::New, [OrderEvent::Cancelled]).await.unwrap();
    let mut processor = Processor::for_events("fulfilment", &store, &store, Numbering { version: 0 });
    let error = processor.run().await.unwrap_err();
    let ProcessorError::Handler { notification, source, .. } = error else { panic!("{error:?}") };
    assert!(source.is::<NotCancelled>() && notification.id == 3, "{notification:?}");
    let parked = store.get::<StockEvent>(Uuid::from_u128(1), EventRange::all()).await.unwrap();
    let caused_by = format!("{}/1", order(3));
    assert_eq!(parked[0].metadata.causation_id(), Some(caused_by.as_str()));
    assert_eq!(parked[0].metadata.correlation_id(), Some(caused_by.as_str()));
    let reserved = store.get::<StockEvent>(STOCK, EventRange::all()).await.unwrap();
    assert_eq!(reserved[0].payload, StockEvent::Reserved { pieces: 3 });
}

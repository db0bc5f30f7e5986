//! Tests of projections and queries on the database that the environment selects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::{error::Error, time::Duration};

use es_core::{
    AggregateRecorder, ErrorKind, EventNotification, Expected, HandlerError, NotificationConsumer,
    PersistenceError, TrackingRecorder, TrackingRecorderExt,
    serde::{self, Deserialize},
    time::OffsetDateTime,
    uuid::Uuid,
};
use es_derive::Event;
use es_factory::{InfrastructureFactory, Sql, SqlProjection};
use es_process::{Processor, ProcessorError};
use support::on_each_database;

/// So long that a test which waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed { customer: Option<String>, cents: i64, weight: f64, is_gift: bool, note: Vec<u8> },
    Changed { cents: i64 },
    Lost,
}

const ORDER: Uuid = Uuid::from_u128(0x16d1_0000_0000_0000_0000_0000_0000_0001);

fn placed() -> OrderEvent {
    OrderEvent::Placed {
        customer: Some("Alice".to_owned()),
        cents: 1_250,
        weight: 0.5,
        is_gift: true,
        note: vec![0, 255],
    }
}

/// Keeps the tables `orders`, `changes` and `lost`.
struct Orders;

impl SqlProjection for Orders {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        let columns = "id UUID PRIMARY KEY, customer TEXT, cents BIGINT NOT NULL, weight DOUBLE PRECISION NOT NULL, \
                       is_gift BOOLEAN NOT NULL, note BLOB NOT NULL, placed_at TEXT NOT NULL";
        let for_postgres =
            columns.replace("BLOB", "BYTEA").replace("placed_at TEXT", "placed_at timestamptz");
        vec![
            Sql::new(format!("CREATE TABLE IF NOT EXISTS orders ({columns})"))
                .postgres(format!("CREATE TABLE IF NOT EXISTS orders ({for_postgres})")),
            Sql::new("CREATE TABLE IF NOT EXISTS changes (cents INTEGER)"),
            Sql::new("CREATE TABLE IF NOT EXISTS lost (reason TEXT NOT NULL)"),
        ]
    }

    fn project(&self, notification: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        let event = notification.event;
        let id = event.originator_id;
        Ok(match event.payload {
            OrderEvent::Placed { customer, cents, weight, is_gift, note } => vec![
                Sql::new("INSERT INTO orders VALUES ($1, $2, $3, $4, $5, $6, $7)")
                    .bind(id)
                    .bind(customer)
                    .bind(cents)
                    .bind(weight)
                    .bind(is_gift)
                    .bind(note)
                    .bind(event.timestamp),
            ],
            OrderEvent::Changed { cents } => vec![
                // In another order than the numbers.
                Sql::new("UPDATE orders SET cents = cents + $2 WHERE id = $1").bind(id).bind(cents),
                Sql::new("INSERT INTO changes SELECT cents FROM orders WHERE id = $1").bind(id),
                Sql::new("INSERT INTO changes VALUES ($1)").bind(None::<i64>),
                Sql::new("INSERT INTO changes VALUES ($1)").bind(-1),
            ],
            OrderEvent::Lost => return Err("an order cannot be lost".into()),
        })
    }

    fn park(
        &self,
        notification: &es_core::Notification,
        failure: HandlerError,
    ) -> Result<Vec<Sql>, HandlerError> {
        let reason = format!("{}: {failure}", notification.event.originator_version);
        Ok(vec![Sql::new("INSERT INTO lost VALUES ($1)").bind(reason)])
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(crate = "es_core::serde")]
struct Order {
    id: Uuid,
    customer: Option<String>,
    cents: u32,
    weight: f64,
    is_gift: bool,
    note: Vec<u8>,
    placed_at: String,
}

/// Processes the application's events up to `last`, or until an error.
async fn project<P: SqlProjection>(
    factory: &InfrastructureFactory,
    name: &str,
    projection: P,
    last: i64,
) -> Result<(), ProcessorError> {
    let projector = factory.projector(projection).await.unwrap();
    let positions = projector.recorder().clone();
    let upstream = factory.application_recorder().await.unwrap();
    let mut processor = Processor::with_consumer(name, upstream, projector);
    tokio::select! {
        result = processor.run() => result,
        reached = positions.wait(name, last, TOO_LONG) => {
            reached.unwrap();
            Ok(())
        }
    }
}

async fn append(factory: &InfrastructureFactory, events: Vec<OrderEvent>) -> i64 {
    let store = factory.event_store().await.unwrap();
    *store.append(ORDER, Expected::Any, events).await.unwrap().last().unwrap()
}

async fn query<T: serde::de::DeserializeOwned>(
    factory: &InfrastructureFactory,
    text: &'static str,
) -> Result<Vec<T>, PersistenceError> {
    factory.query(Sql::new(text)).await
}

#[tokio::test]
async fn one_projection_and_its_queries_run_on_each_database() {
    on_each_database(async |factory| {
        // An event of another type is skipped.
        let other = factory.application_recorder().await.unwrap();
        other.insert_events(vec![support::event(1)]).await.unwrap();
        let before = OffsetDateTime::now_utc().to_string();
        let last =
            append(factory, vec![placed(), OrderEvent::Changed { cents: -50 }, OrderEvent::Lost]).await;
        project(factory, "orders", Orders, last).await.unwrap();

        let select =
            Sql::new("SELECT * FROM orders WHERE id = $1 AND customer = $2").bind(ORDER).bind("Alice");
        let [mut order] = <[Order; 1]>::try_from(factory.query(select).await.unwrap()).unwrap();
        assert!(order.placed_at.starts_with(&before[..10]) && order.placed_at.ends_with('Z'), "{order:?}");
        order.placed_at.clear();
        let expected = Order {
            id: ORDER,
            customer: Some("Alice".to_owned()),
            cents: 1_200,
            weight: 0.5,
            is_gift: true,
            note: vec![0, 255],
            placed_at: String::new(),
        };
        assert_eq!(order, expected);
        // Statements see what those before them wrote.
        let mut changes: Vec<Option<i64>> = query(factory, "SELECT cents FROM changes").await.unwrap();
        changes.sort();
        assert_eq!(changes, [None, Some(-1), Some(1_200)]);
        let lost: Vec<(String, i64)> = query(factory, "SELECT reason, 1 FROM lost").await.unwrap();
        assert_eq!(lost, [("3: an order cannot be lost".to_owned(), 1)]);

        // It continues at its position.
        let last = append(factory, vec![OrderEvent::Changed { cents: 1 }]).await;
        project(factory, "orders", Orders, last).await.unwrap();
        assert_eq!(query::<i64>(factory, "SELECT cents FROM orders").await.unwrap(), [1_201]);
    })
    .await;
}

/// A projection of one statement for each event.
struct Statement(fn() -> Sql);

impl SqlProjection for Statement {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![
            Sql::new("CREATE TABLE IF NOT EXISTS numbers (n BIGINT NOT NULL)"),
            Sql::new("CREATE TABLE IF NOT EXISTS texts (t TEXT, n BIGINT NOT NULL)"),
        ]
    }

    fn project(&self, _: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        Ok(vec![Sql::new("INSERT INTO numbers VALUES ($1)").bind(7), (self.0)()])
    }
}

#[tokio::test]
async fn a_failed_statement_is_named_and_rolls_back() {
    on_each_database(async |factory| {
        let last = append(factory, vec![placed()]).await;
        let statements: [fn() -> Sql; 6] = [
            || Sql::new("INSERT INTO no_such_table VALUES (1)"),
            || Sql::new("INSERT INTO numbers VALUES ($1)").bind(None::<i64>),
            || Sql::new("INSERT INTO numbers VALUES ($1)"),
            || Sql::new("INSERT INTO numbers VALUES ($1)").bind(1).bind("secret"),
            || Sql::new("INSERT INTO texts VALUES ($1, $2)").bind("secret").bind(None::<i64>),
            || Sql::new("INSERT INTO numbers VALUES (1); INSERT INTO numbers VALUES (2)"),
        ];
        for statement in statements {
            let error = project(factory, "numbers", Statement(statement), last).await.unwrap_err();
            let ProcessorError::Handler { source, .. } = &error else { panic!("{error}") };
            let text = format!("{:?}", statement().sqlite_text());
            assert!(source.to_string().contains(&text), "{source}");
            assert!(source.source().is_some() && !format!("{error:?}").contains("secret"), "{error:?}");
        }
        assert!(query::<i64>(factory, "SELECT n FROM numbers").await.unwrap().is_empty());
        let positions = factory.tracking_recorder().await.unwrap();
        assert_eq!(positions.max_tracking_id("numbers").await.unwrap(), None);
    })
    .await;
}

struct Unusable;

impl SqlProjection for Unusable {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![Sql::new("CREATE TABLE half (n BIGINT)"), Sql::new("CREATE nothing")]
    }

    fn project(&self, _: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_projection_that_cannot_be_set_up_is_an_error() {
    on_each_database(async |factory| {
        let error = factory.projector(Unusable).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        let causes: Vec<_> = std::iter::successors(error.source(), |cause| (*cause).source())
            .map(ToString::to_string)
            .collect();
        assert!(causes.iter().any(|cause| cause.contains("CREATE nothing")), "{causes:?}");
        assert!(query::<i64>(factory, "SELECT n FROM half").await.is_err(), "the table is rolled back");
    })
    .await;
}

#[tokio::test]
async fn a_query_cannot_write_and_names_itself_in_errors() {
    on_each_database(async |factory| {
        factory.projector(Orders).await.unwrap();
        for text in
            ["INSERT INTO changes VALUES (1) RETURNING cents", "CREATE TABLE t (n BIGINT)", "nonsense"]
        {
            let error = query::<i64>(factory, text).await.unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(query::<i64>(factory, "SELECT cents FROM changes").await.unwrap().is_empty());
        // Also after a refused query, the recorders write.
        append(factory, vec![placed()]).await;
        let wrong = Sql::new("SELECT CAST($1 AS BIGINT)").bind(1).bind(2);
        assert!(factory.query::<i64>(wrong).await.is_err());
        let mismatch = query::<(i64, i64)>(factory, "SELECT 'a', 1").await.unwrap_err();
        assert_eq!(mismatch.kind(), ErrorKind::Data);
    })
    .await;
}

#[tokio::test]
async fn different_projections_under_one_name_are_refused() {
    on_each_database(async |factory| {
        let upstream = factory.application_recorder().await.unwrap();
        let orders = factory.projector(Orders).await.unwrap();
        let statement = factory.projector(Statement(|| Sql::new("SELECT 1"))).await.unwrap();
        let shared = orders.recorder().tracking_signal() == statement.recorder().tracking_signal();
        let mut first = Processor::with_consumer("orders", upstream.clone(), orders);
        let mut second = Processor::with_consumer("orders", upstream, statement);
        tokio::select! {
            biased;
            result = first.run() => panic!("{result:?}"),
            result = second.run(), if shared => assert!(result.is_err()),
            () = std::future::ready(()), if !shared => {}
        }
    })
    .await;
}

#[tokio::test]
async fn in_memory_there_is_no_sql() {
    let settings = [("PERSISTENCE_MODULE", "popo")];
    let factory = InfrastructureFactory::builder("Bank").environment(settings).build().unwrap();
    let errors = [
        factory.projector(Orders).await.map(drop).unwrap_err(),
        query::<i64>(&factory, "SELECT 1").await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotSupported);
        assert!(error.to_string().contains("SQLITE_DBNAME=:memory:"), "{error}");
    }
}

#[test]
fn debug_shows_no_values() {
    let statement = Sql::new("SELECT $1").bind("secret").bind(4_711);
    assert!(!format!("{statement:?}").contains("secret") && !format!("{statement:?}").contains("4711"));
}

//! The projection of the tests, and what they do with it.

use std::time::Duration;

use es_core::{
    ApplicationRecorder, ConsumerError, ErrorKind, EventNotification, Expected, HandlerError, Notification,
    NotificationBatch, NotificationConsumer, NotificationSelection, TrackingRecorderExt, uuid::Uuid,
};
use es_derive::Event;
use es_factory::{
    InfrastructureFactory, ProjectionContext, Sql, VersionState, VersionedProjection, VersionedProjector,
};
use es_process::{Processor, Running};

/// So long that a test which waits for it has failed.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(60);

/// The wait for what must not happen.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
pub(crate) enum OrderEvent {
    Placed { cents: i64 },
    Cancelled,
}

/// Keeps the tables `sales`, whose rows show their version, and `totals`, and sends mails.
pub(crate) struct Sales;

impl VersionedProjection for Sales {
    type Event = OrderEvent;
    const TABLES: &[&str] = &["sales", "totals"];

    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
        // The columns of a version may differ.
        let more = if context.version() == 1 { "" } else { ", cents_first BIGINT" };
        let (sales, totals) = (context.table("sales"), context.table("totals"));
        vec![
            Sql::new(format!(
                "CREATE TABLE IF NOT EXISTS {sales} (order_number BIGINT, version BIGINT{more})"
            )),
            Sql::new(format!("CREATE TABLE IF NOT EXISTS {totals} (cents BIGINT, version BIGINT)")),
            Sql::new("CREATE TABLE IF NOT EXISTS mails (order_number BIGINT)"),
        ]
    }

    fn project(
        &self,
        notification: EventNotification<OrderEvent>,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        let OrderEvent::Placed { cents } = notification.event.payload else {
            return Err("not placed".into());
        };
        let (sales, totals) = (context.table("sales"), context.table("totals"));
        let version = context.version();
        let mut statements = vec![
            Sql::new(format!("INSERT INTO {sales} (order_number, version) VALUES ($1, $2)"))
                .bind(notification.id)
                .bind(version),
            Sql::new(format!("INSERT INTO {totals} VALUES ($1, $2)")).bind(cents).bind(version),
        ];
        if !context.is_replay() {
            statements.push(Sql::new("INSERT INTO mails VALUES ($1)").bind(notification.id));
        }
        Ok(statements)
    }

    fn park(
        &self,
        notification: &Notification,
        _: HandlerError,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        let insert =
            format!("INSERT INTO {} (order_number, version) VALUES ($1, -1)", context.table("sales"));
        Ok(vec![Sql::new(insert).bind(-notification.id)])
    }
}

pub(crate) async fn append(factory: &InfrastructureFactory, orders: usize) -> i64 {
    let store = factory.event_store().await.unwrap();
    let events = vec![OrderEvent::Placed { cents: 10 }; orders];
    *store.append(Uuid::from_u128(2), Expected::Any, events).await.unwrap().last().unwrap()
}

pub(crate) async fn projector(factory: &InfrastructureFactory, version: u32) -> VersionedProjector<Sales> {
    factory.versioned_projector("sales", version, Sales).await.unwrap()
}

/// Runs a processor of a version in a task.
pub(crate) async fn start(factory: &InfrastructureFactory, version: u32) -> Running {
    let projector = projector(factory, version).await;
    let upstream = factory.application_recorder().await.unwrap();
    let name = projector.consumer_name().to_owned();
    let processor = Processor::with_consumer(name, upstream, projector);
    processor.poll_interval(Duration::from_millis(50)).spawn().unwrap()
}

pub(crate) async fn stop(mut running: Running) {
    running.stop();
    running.join().await.unwrap();
}

pub(crate) async fn wait(factory: &InfrastructureFactory, consumer: &str, id: i64) {
    factory.tracking_recorder().await.unwrap().wait(consumer, id, TOO_LONG).await.unwrap();
}

/// Verifies that a consumer does not process a notification.
pub(crate) async fn stays_behind(factory: &InfrastructureFactory, consumer: &str, id: i64) {
    let waited = factory.tracking_recorder().await.unwrap().wait(consumer, id, SHORT).await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Returns the version, the number and the highest number of the rows that readers see.
pub(crate) async fn read(factory: &InfrastructureFactory) -> Vec<(i64, i64, i64)> {
    let query = "SELECT s.version, COUNT(*), MAX(s.order_number) FROM sales s \
                 WHERE (SELECT COUNT(*) FROM totals t WHERE t.version = s.version) \
                     = (SELECT COUNT(*) FROM sales) GROUP BY s.version";
    factory.query(Sql::new(query)).await.unwrap()
}

pub(crate) async fn mails(factory: &InfrastructureFactory) -> Vec<i64> {
    factory.query(Sql::new("SELECT order_number FROM mails ORDER BY order_number")).await.unwrap()
}

pub(crate) async fn states(factory: &InfrastructureFactory) -> Vec<VersionState> {
    let versions = factory.projections().versions("sales").await.unwrap();
    versions.iter().map(|version| version.state).collect()
}

/// Returns a batch of all notifications after a position, for a projector that is called directly.
pub(crate) async fn all_after(factory: &InfrastructureFactory, position: i64) -> Vec<Notification> {
    let recorder = factory.application_recorder().await.unwrap();
    let selection = NotificationSelection::new(1_000).after(position);
    recorder.select_notifications(selection).await.unwrap()
}

pub(crate) async fn process<P: VersionedProjection>(
    projector: &mut VersionedProjector<P>,
    notifications: &[Notification],
    expected: i64,
) -> Result<usize, ConsumerError> {
    let application_name = projector.consumer_name().to_owned();
    let batch = NotificationBatch {
        application_name: &application_name,
        notifications,
        position: notifications.last().map_or(expected, |last| last.id),
        expected_position: Some(expected),
    };
    projector.process(batch).await
}

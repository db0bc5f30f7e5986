//! Tests of the versions of projections on the database that the environment selects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]

mod support;

use std::time::Duration;

use es_core::{
    AggregateRecorder, ApplicationRecorder, ConsumerError, ErrorKind, EventNotification, Expected,
    HandlerError, Notification, NotificationBatch, NotificationConsumer, NotificationSelection,
    PersistenceError, TrackingRecorder, TrackingRecorderExt, uuid::Uuid,
};
use es_derive::Event;
use es_factory::{
    InfrastructureFactory, ProjectionContext, Sql, SqlProjection, VersionState, VersionedProjection,
    VersionedProjector,
};
use es_process::{Processor, ProcessorError, Running};

/// So long that a test which waits for it has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

/// The wait for what must not happen.
const SHORT: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order")]
enum OrderEvent {
    Placed { cents: i64 },
    Cancelled,
}

/// Keeps the tables `sales`, whose rows show their version, and `totals`, and sends mails.
struct Sales;

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

/// Runs a test on SQLite in memory and in a file, and on PostgreSQL.
async fn on_each_database(test: impl AsyncFn(&InfrastructureFactory)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.db").display().to_string();
    for database in [":memory:", &file] {
        let settings = [("PERSISTENCE_MODULE", "sqlite"), ("SQLITE_DBNAME", database)];
        let factory = InfrastructureFactory::builder("Bank").environment(settings).build().unwrap();
        test(&factory).await;
        factory.close().await.unwrap();
    }
    #[cfg(feature = "postgres")]
    if let Some(server) = support::server::Server::with_schema().await {
        let factory = server.factory(&[]);
        test(&factory).await;
        factory.close().await.unwrap();
        server.drop_schema().await;
    }
}

async fn append(factory: &InfrastructureFactory, orders: usize) -> i64 {
    let store = factory.event_store().await.unwrap();
    let events = vec![OrderEvent::Placed { cents: 10 }; orders];
    *store.append(Uuid::from_u128(2), Expected::Any, events).await.unwrap().last().unwrap()
}

async fn projector(factory: &InfrastructureFactory, version: u32) -> VersionedProjector<Sales> {
    factory.versioned_projector("sales", version, Sales).await.unwrap()
}

/// Runs a processor of a version in a task.
async fn start(factory: &InfrastructureFactory, version: u32) -> Running {
    let projector = projector(factory, version).await;
    let upstream = factory.application_recorder().await.unwrap();
    let name = projector.consumer_name().to_owned();
    let processor = Processor::with_consumer(name, upstream, projector);
    processor.poll_interval(Duration::from_millis(50)).spawn().unwrap()
}

async fn stop(mut running: Running) {
    running.stop();
    running.join().await.unwrap();
}

async fn wait(factory: &InfrastructureFactory, consumer: &str, id: i64) {
    factory.tracking_recorder().await.unwrap().wait(consumer, id, TOO_LONG).await.unwrap();
}

/// Verifies that a consumer does not process a notification.
async fn stays_behind(factory: &InfrastructureFactory, consumer: &str, id: i64) {
    let waited = factory.tracking_recorder().await.unwrap().wait(consumer, id, SHORT).await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Returns the version, the number and the highest number of the rows that readers see.
async fn read(factory: &InfrastructureFactory) -> Vec<(i64, i64, i64)> {
    let query = "SELECT s.version, COUNT(*), MAX(s.order_number) FROM sales s \
                 WHERE (SELECT COUNT(*) FROM totals t WHERE t.version = s.version) \
                     = (SELECT COUNT(*) FROM sales) GROUP BY s.version";
    factory.query(Sql::new(query)).await.unwrap()
}

async fn mails(factory: &InfrastructureFactory) -> Vec<i64> {
    factory.query(Sql::new("SELECT order_number FROM mails ORDER BY order_number")).await.unwrap()
}

async fn states(factory: &InfrastructureFactory) -> Vec<VersionState> {
    let versions = factory.projections().versions("sales").await.unwrap();
    versions.iter().map(|version| version.state).collect()
}

/// Returns a batch of all notifications after a position, for a projector that is called directly.
async fn all_after(factory: &InfrastructureFactory, position: i64) -> Vec<Notification> {
    let recorder = factory.application_recorder().await.unwrap();
    let selection = NotificationSelection::new(1_000).after(position);
    recorder.select_notifications(selection).await.unwrap()
}

async fn process(
    projector: &mut VersionedProjector<Sales>,
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

#[tokio::test]
async fn a_version_is_built_switched_to_and_rolled_back() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        assert!(projections.all().await.unwrap().is_empty());
        append(factory, 3).await;
        let first = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        assert_eq!(read(factory).await, [(1, 3, 3)]);

        let second = start(factory, 2).await;
        append(factory, 2).await;
        wait(factory, "sales@2", 5).await;
        assert_eq!(read(factory).await, [(1, 5, 5)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5]);
        projections.catch_up_and_switch("sales", 2, TOO_LONG).await.unwrap();
        assert_eq!(states(factory).await, [VersionState::Retired, VersionState::Active]);
        assert_eq!(read(factory).await, [(2, 5, 5)]);
        assert_eq!(projections.active("sales").await.unwrap().consumer_name, "sales@2");

        append(factory, 2).await;
        wait(factory, "sales@2", 7).await;
        assert_eq!(read(factory).await, [(2, 7, 7)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7]);

        projections.rollback("sales").await.unwrap();
        wait(factory, "sales", 7).await;
        append(factory, 1).await;
        wait(factory, "sales", 8).await;
        assert_eq!(read(factory).await, [(1, 8, 8)]);
        stays_behind(factory, "sales@2", 8).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(projections.rollback("sales").await.is_err());

        projections.switch("sales", 2, 0).await.unwrap();
        wait(factory, "sales@2", 8).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        stop(first).await;
        projections.drop("sales", 1).await.unwrap();
        projections.drop("sales", 1).await.unwrap();
        assert_eq!(states(factory).await, [VersionState::Dropped, VersionState::Active]);
        assert!(factory.query::<i64>(Sql::new("SELECT version FROM sales_v1")).await.is_err());
        assert_eq!(read(factory).await, [(2, 8, 8)]);
        stop(second).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_built_does_not_pass_the_active_one() {
    on_each_database(async |factory| {
        append(factory, 3).await;
        let first = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        stop(first).await;
        append(factory, 3).await;
        let second = start(factory, 2).await;
        wait(factory, "sales@2", 3).await;
        stays_behind(factory, "sales@2", 4).await;
        assert_eq!(mails(factory).await, [1, 2, 3]);
        let first = start(factory, 1).await;
        wait(factory, "sales@2", 6).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6]);
        stop(first).await;
        stop(second).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_counts_as_caught_up_if_only_other_topics_follow() {
    on_each_database(async |factory| {
        append(factory, 2).await;
        let other = factory.application_recorder().await.unwrap();
        other.insert_events(vec![support::event(1)]).await.unwrap();
        let mut first = projector(factory, 1).await;
        let mut second = projector(factory, 2).await;
        process(&mut first, &all_after(factory, 0).await, 0).await.unwrap();
        append(factory, 1).await;
        let mut of_second = all_after(factory, 0).await;
        of_second.retain(|notification| notification.id != 3);
        assert_eq!(process(&mut second, &of_second, 0).await.unwrap(), 2);
        let projections = factory.projections();
        assert!(projections.switch("sales", 2, 0).await.unwrap_err().is_transient());
        // The next one is not processed, and those before it count as processed.
        let waits = process(&mut second, &of_second[2..], 2).await.unwrap_err();
        assert!(matches!(waits, ConsumerError::Recording(error) if error.is_transient()));
        projections.switch("sales", 2, 0).await.unwrap();
        // The processor still expects its own position.
        assert_eq!(process(&mut second, &of_second[2..], 2).await.unwrap(), 1);
        assert_eq!(mails(factory).await, [1, 2, 4]);
        assert_eq!(read(factory).await, [(2, 3, 4)]);
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_a_version_that_was_replaced_meanwhile_is_refused() {
    on_each_database(async |factory| {
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        let mut second = projector(factory, 2).await;
        let notifications = all_after(factory, 0).await;
        // Both have read the state of the versions.
        process(&mut first, &notifications, 0).await.unwrap();
        process(&mut second, &notifications, 0).await.unwrap();
        factory.projections().switch("sales", 2, 0).await.unwrap();
        append(factory, 1).await;
        let notifications = all_after(factory, 1).await;
        let refused = process(&mut first, &notifications, 1).await.unwrap_err();
        let ConsumerError::Recording(error) = refused else { panic!("{refused}") };
        assert!(error.is_transient() && error.to_string().contains("was replaced"), "{error}");
        process(&mut second, &notifications, 1).await.unwrap();
        assert_eq!(mails(factory).await, [1, 2]);
        let rows: Vec<i64> = factory.query(Sql::new("SELECT order_number FROM sales_v1")).await.unwrap();
        assert_eq!(rows, [1]);
        let positions = factory.tracking_recorder().await.unwrap();
        assert_eq!(positions.max_tracking_id("sales").await.unwrap(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_paused_version_continues_without_a_restart() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let running = start(factory, 1).await;
        wait(factory, "sales", 1).await;
        projections.pause("sales", 1).await.unwrap();
        projections.pause("sales", 1).await.unwrap();
        assert!(projections.active("sales").await.unwrap().is_paused);
        append(factory, 1).await;
        stays_behind(factory, "sales", 2).await;
        projections.resume("sales", 1).await.unwrap();
        wait(factory, "sales", 2).await;
        assert_eq!(mails(factory).await, [1, 2]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_repeats_everything_but_the_side_effects() {
    on_each_database(async |factory| {
        append(factory, 3).await;
        let mut running = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        factory.projections().reset("sales", 1).await.unwrap();
        assert!(read(factory).await.is_empty());
        append(factory, 1).await;
        let ProcessorError::Persistence { source, .. } = running.join().await.unwrap_err() else { panic!() };
        assert!(source.is_rolled_back(), "{source}");
        let running = start(factory, 1).await;
        wait(factory, "sales", 4).await;
        assert_eq!(read(factory).await, [(1, 4, 4)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_parked_in_the_tables_of_the_version() {
    on_each_database(async |factory| {
        let store = factory.event_store().await.unwrap();
        store.append(Uuid::from_u128(2), Expected::New, [OrderEvent::Cancelled]).await.unwrap();
        let running = start(factory, 1).await;
        wait(factory, "sales", 1).await;
        let rows: Vec<(i64, i64)> =
            factory.query(Sql::new("SELECT order_number, version FROM sales")).await.unwrap();
        assert_eq!(rows, [(-1, -1)]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_row_that_the_projection_itself_requires_is_its_own_failure() {
    struct Strict;

    impl VersionedProjection for Strict {
        type Event = OrderEvent;
        const TABLES: &[&str] = &[];

        fn set_up(&self, _: &ProjectionContext) -> Vec<Sql> {
            Vec::new()
        }

        fn project(
            &self,
            _: EventNotification<OrderEvent>,
            _: &ProjectionContext,
        ) -> Result<Vec<Sql>, HandlerError> {
            Ok(vec![Sql::new("SELECT 1 WHERE 1 = 2").require_row()])
        }
    }

    on_each_database(async |factory| {
        append(factory, 1).await;
        let projector = factory.versioned_projector("strict", 1, Strict).await.unwrap();
        let upstream = factory.application_recorder().await.unwrap();
        let failed = Processor::with_consumer("strict", upstream, projector).run().await.unwrap_err();
        let ProcessorError::Handler { source, .. } = &failed else { panic!("{failed}") };
        assert!(source.to_string().contains("SELECT 1 WHERE 1 = 2"), "{source}");
    })
    .await;
}

/// The projection before it had versions.
struct Unversioned;

impl SqlProjection for Unversioned {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![
            Sql::new("CREATE TABLE IF NOT EXISTS sales (order_number BIGINT, version BIGINT)"),
            Sql::new("CREATE TABLE IF NOT EXISTS totals (cents BIGINT, version BIGINT)"),
        ]
    }

    fn project(&self, notification: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        Ok(vec![
            Sql::new("INSERT INTO sales VALUES ($1, 1)").bind(notification.id),
            Sql::new("INSERT INTO totals VALUES (10, 1)"),
        ])
    }
}

#[tokio::test]
async fn version_1_takes_over_a_projection_without_versions() {
    on_each_database(async |factory| {
        append(factory, 2).await;
        let upstream = factory.application_recorder().await.unwrap();
        let unversioned = factory.projector(Unversioned).await.unwrap();
        let running = Processor::with_consumer("sales", upstream, unversioned).spawn().unwrap();
        wait(factory, "sales", 2).await;
        stop(running).await;
        let second = factory.versioned_projector("sales", 2, Sales).await.map(drop).unwrap_err();
        assert!(second.to_string().contains("register version 1"), "{second}");

        let running = start(factory, 1).await;
        append(factory, 1).await;
        wait(factory, "sales", 3).await;
        assert_eq!(read(factory).await, [(1, 3, 3)]);
        assert_eq!(mails(factory).await, [3]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused() {
    async fn refused(change: impl Future<Output = Result<(), PersistenceError>>, reason: &str) {
        let error = change.await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }

    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        process(&mut first, &all_after(factory, 0).await, 0).await.unwrap();
        let mut second = projector(factory, 2).await;
        refused(projections.switch("stock", 2, 0), "no projection \"stock\"").await;
        refused(projections.switch("sales", 3, 0), "no version 3").await;
        refused(projections.switch("sales", 2, 0), "1 notification ids behind").await;
        refused(projections.catch_up_and_switch("sales", 2, SHORT), "did not catch up").await;
        assert!(!projections.active("sales").await.unwrap().is_paused);
        refused(projections.rollback("sales"), "replaced no other").await;
        refused(projections.drop("sales", 1), "is active, and version 2 exists").await;
        projections.switch("sales", 1, 0).await.unwrap();

        projections.switch("sales", 2, 1).await.unwrap();
        projections.drop("sales", 1).await.unwrap();
        refused(projections.rollback("sales"), "is dropped").await;
        refused(projections.switch("sales", 1, 0), "is dropped").await;
        refused(projections.reset("sales", 1), "is dropped").await;
        refused(projections.pause("sales", 1), "is dropped").await;
        let again = factory.versioned_projector("sales", 1, Sales).await.map(drop);
        assert!(again.unwrap_err().to_string().contains("is dropped"));

        let notifications = all_after(factory, 0).await;
        let batch = NotificationBatch {
            application_name: "sales",
            notifications: &notifications,
            position: 1,
            expected_position: Some(0),
        };
        let error = second.process(batch).await.unwrap_err();
        assert!(matches!(error, ConsumerError::Recording(error) if error.kind() == ErrorKind::Programming));

        // The last one can be dropped; a later one does not repeat its side effects.
        process(&mut second, &notifications, 0).await.unwrap();
        projections.drop("sales", 2).await.unwrap();
        assert!(factory.query::<i64>(Sql::new("SELECT version FROM sales")).await.is_err());
        assert!(projections.active("sales").await.is_err());
        let error = process(&mut second, &notifications, 0).await.unwrap_err();
        assert!(matches!(error, ConsumerError::Recording(error) if error.kind() == ErrorKind::Programming));
        let mut third = projector(factory, 3).await;
        process(&mut third, &notifications, 0).await.unwrap();
        assert_eq!(read(factory).await, [(3, 1, 1)]);
        assert_eq!(mails(factory).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_version_that_was_not_set_up_is_not_switched_to() {
    struct Unusable;

    impl VersionedProjection for Unusable {
        type Event = OrderEvent;
        const TABLES: &[&str] = Sales::TABLES;

        fn set_up(&self, _: &ProjectionContext) -> Vec<Sql> {
            vec![Sql::new("CREATE nothing")]
        }

        fn project(
            &self,
            _: EventNotification<OrderEvent>,
            _: &ProjectionContext,
        ) -> Result<Vec<Sql>, HandlerError> {
            Ok(Vec::new())
        }
    }

    on_each_database(async |factory| {
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        process(&mut first, &all_after(factory, 0).await, 0).await.unwrap();
        assert!(factory.versioned_projector("sales", 2, Unusable).await.is_err());
        assert!(factory.projections().switch("sales", 2, i64::MAX).await.is_err());
        assert_eq!(states(factory).await, [VersionState::Active, VersionState::Building]);
        assert_eq!(read(factory).await, [(1, 1, 1)]);
    })
    .await;
}

#[tokio::test]
async fn names_of_tables_are_verified() {
    struct Named;

    impl VersionedProjection for Named {
        type Event = OrderEvent;
        const TABLES: &[&str] = &["sales; DROP TABLE mails"];

        fn set_up(&self, _: &ProjectionContext) -> Vec<Sql> {
            Vec::new()
        }

        fn project(
            &self,
            _: EventNotification<OrderEvent>,
            _: &ProjectionContext,
        ) -> Result<Vec<Sql>, HandlerError> {
            Ok(Vec::new())
        }
    }

    on_each_database(async |factory| {
        let error = factory.versioned_projector("named", 1, Named).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Programming);
        assert!(factory.versioned_projector("", 1, Sales).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn in_memory_there_are_no_versions() {
    let settings = [("PERSISTENCE_MODULE", "popo")];
    let factory = InfrastructureFactory::builder("Bank").environment(settings).build().unwrap();
    let errors = [
        factory.versioned_projector("sales", 1, Sales).await.map(drop).unwrap_err(),
        factory.projections().all().await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotSupported);
    }
}

/// A reader of two views in one transaction of READ COMMITTED sees one version, though the switch happens
/// between its statements; and the privileges of readers are kept, though the columns change.
#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_transaction_of_postgres_reads_one_version() {
    let Some(server) = support::server::Server::with_schema().await else { return };
    let factory = server.factory(&[]);
    append(&factory, 1).await;
    let notifications = all_after(&factory, 0).await;
    for version in [1, 2] {
        process(&mut projector(&factory, version).await, &notifications, 0).await.unwrap();
    }
    let schema = &server.schema;
    let mut reader = server.connect().await;
    let mut run =
        async |text: String| sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut reader).await.unwrap();
    run(format!("GRANT SELECT ON {schema}.sales TO PUBLIC")).await;
    run("BEGIN".to_owned()).await;
    let version = |rows: Vec<sqlx::postgres::PgRow>| sqlx::Row::get::<i64, _>(&rows[0], 0);
    assert_eq!(version(run(format!("SELECT version FROM {schema}.sales")).await), 1);
    let projections = factory.projections();
    let (switched, ()) = tokio::join!(projections.switch("sales", 2, 0), async {
        // The switch has begun: it waits for the end of this transaction.
        while run("SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'".to_owned())
            .await
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(version(run(format!("SELECT version FROM {schema}.totals")).await), 1);
        assert_eq!(version(run(format!("SELECT version FROM {schema}.sales")).await), 1);
        run("COMMIT".to_owned()).await;
    });
    switched.unwrap();
    assert_eq!(version(run(format!("SELECT version FROM {schema}.sales")).await), 2);
    assert_eq!(version(run(format!("SELECT version FROM {schema}.totals")).await), 2);
    let granted = format!(
        "SELECT 1 FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC' \
         AND table_schema = '{schema}' AND table_name = 'sales' AND privilege_type = 'SELECT'"
    );
    // From 2 to 1, a column is missing, and the view is created anew.
    projections.rollback("sales").await.unwrap();
    assert_eq!(version(run(format!("SELECT version FROM {schema}.sales")).await), 1);
    assert_eq!(run(granted).await.len(), 1);
    factory.close().await.unwrap();
    drop(reader);
    server.drop_schema().await;
}

//! Versions are registered, with their names and tables.

use es_core::{ErrorKind, EventNotification, HandlerError};
use es_factory::{
    InfrastructureFactory, ProjectionContext, Sql, SqlProjection, VersionState, VersionedProjection,
};
use es_process::Processor;

use crate::{
    sales::{
        OrderEvent, Sales, all_after, append, mails, process, projector, read, start, states, stop, wait,
    },
    support::on_each_database,
};

/// A projection without rows, with the tables of a case.
struct Named<const CASE: usize>;

const CASES: [&[&str]; 6] = [
    &["sales; DROP TABLE mails"],
    &["projection_versions"],
    &["sales_v1"],
    &["stock", "totals"],
    &["sales"],
    &["stock"],
];

impl<const CASE: usize> VersionedProjection for Named<CASE> {
    type Event = OrderEvent;
    const TABLES: &[&str] = CASES[CASE];

    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
        let create =
            |table: &&str| format!("CREATE TABLE IF NOT EXISTS {} (id BIGINT)", context.table(table));
        Self::TABLES.iter().map(|table| Sql::new(create(table))).collect()
    }

    fn project(
        &self,
        _: EventNotification<OrderEvent>,
        _: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        Ok(Vec::new())
    }
}

/// Verifies that a projection is not registered.
async fn refused<const CASE: usize>(factory: &InfrastructureFactory, name: &str, reason: &str) {
    let error = factory.versioned_projector(name, 1, Named::<CASE>).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains(reason), "{error}");
    if let Ok(versions) = factory.projections().versions(name).await {
        assert!(versions.iter().all(|version| version.tables == Sales::TABLES), "{versions:?}");
    }
}

#[tokio::test]
async fn instances_that_take_over_a_projection_at_the_same_time_agree() {
    on_each_database(async |factory| {
        append(factory, 1).await;
        project_unversioned(factory, 1).await;
        tokio::join!(projector(factory, 1), projector(factory, 1), projector(factory, 1));
        assert_eq!(read(factory).await, [(1, 1, 1)]);
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

/// Runs the projection without versions up to a notification.
async fn project_unversioned(factory: &InfrastructureFactory, last: i64) {
    let upstream = factory.application_recorder().await.unwrap();
    let unversioned = factory.projector(Unversioned).await.unwrap();
    let running = Processor::with_consumer("sales", upstream, unversioned).spawn().unwrap();
    wait(factory, "sales", last).await;
    stop(running).await;
}

#[tokio::test]
async fn version_1_takes_over_a_projection_without_versions() {
    on_each_database(async |factory| {
        append(factory, 2).await;
        project_unversioned(factory, 2).await;
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
async fn a_version_whose_set_up_fails_is_not_registered() {
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
        assert_eq!(states(factory).await, [VersionState::Active]);
        assert_eq!(read(factory).await, [(1, 1, 1)]);
        projector(factory, 2).await;
        assert_eq!(states(factory).await, [VersionState::Active, VersionState::Building]);
    })
    .await;
}

#[tokio::test]
async fn names_are_verified() {
    on_each_database(async |factory| {
        refused::<0>(factory, "named", "lower-case letters").await;
        refused::<1>(factory, "named", "a name of the library's").await;
        refused::<2>(factory, "named", "a name of the library's").await;
        assert!(factory.versioned_projector("", 1, Sales).await.is_err());
        // It would share the position of version 2 of "sales".
        refused::<4>(factory, "sales@2", "must not end with '@' and a number").await;

        let name = "\u{fc}ber \"all\"; DROP TABLE 'mails' --\n@x";
        append(factory, 1).await;
        for version in [1, u32::MAX] {
            let mut projector = factory.versioned_projector(name, version, Sales).await.unwrap();
            process(&mut projector, &all_after(factory, 0).await, 0).await.unwrap();
        }
        factory.projections().switch(name, u32::MAX, 0).await.unwrap();
        assert_eq!(read(factory).await, [(u32::MAX.into(), 1, 1)]);
        factory.projections().drop(name, 1).await.unwrap();
        assert_eq!(mails(factory).await, [1]);
    })
    .await;
}

/// The longest name of a table that is allowed, for which PostgreSQL truncates no name.
struct Long;

impl VersionedProjection for Long {
    type Event = OrderEvent;
    const TABLES: &[&str] = &["a23456789_b23456789_c23456789_d23456789_e2345678"];

    fn set_up(&self, context: &ProjectionContext) -> Vec<Sql> {
        vec![Sql::new(format!(
            "CREATE TABLE IF NOT EXISTS {} (version BIGINT)",
            context.table(Self::TABLES[0])
        ))]
    }

    fn project(
        &self,
        _: EventNotification<OrderEvent>,
        context: &ProjectionContext,
    ) -> Result<Vec<Sql>, HandlerError> {
        let insert = format!("INSERT INTO {} VALUES ($1)", context.table(Self::TABLES[0]));
        Ok(vec![Sql::new(insert).bind(context.version())])
    }
}

#[tokio::test]
async fn the_versions_of_a_long_name_have_tables_of_their_own() {
    on_each_database(async |factory| {
        append(factory, 1).await;
        let name = "n".repeat(1_000);
        for version in [u32::MAX - 1, u32::MAX] {
            let mut projector = factory.versioned_projector(&name, version, Long).await.unwrap();
            process(&mut projector, &all_after(factory, 0).await, 0).await.unwrap();
        }
        factory.projections().switch(&name, u32::MAX, 0).await.unwrap();
        let select = format!("SELECT version FROM {}", Long::TABLES[0]);
        assert_eq!(factory.query::<i64>(Sql::new(select)).await.unwrap(), [i64::from(u32::MAX)]);
    })
    .await;
}

#[tokio::test]
async fn projections_do_not_share_tables() {
    on_each_database(async |factory| {
        append(factory, 1).await;
        process(&mut projector(factory, 1).await, &all_after(factory, 0).await, 0).await.unwrap();
        refused::<3>(factory, "stock", "table \"totals\" of projection \"stock\" is one of projection").await;
        refused::<4>(factory, "sales", "was registered with the tables").await;
        assert_eq!(read(factory).await, [(1, 1, 1)]);
        factory.projections().drop("sales", 1).await.unwrap();
        factory.versioned_projector("stock", 1, Named::<3>).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn relations_that_stand_where_a_view_is_to_be_are_left_alone() {
    on_each_database(async |factory| {
        factory.projector(Statement("CREATE VIEW sales AS SELECT 1 AS version")).await.unwrap();
        refused::<4>(factory, "sales", "a view \"sales\" exists").await;
        assert_eq!(factory.query::<i64>(Sql::new("SELECT version FROM sales")).await.unwrap(), [1]);
        factory.projector(Statement("DROP VIEW sales")).await.unwrap();

        // A table is taken over by the first version, and by no later one.
        projector(factory, 1).await;
        factory.projector(Statement("CREATE TABLE stock (id BIGINT)")).await.unwrap();
        let other = factory.versioned_projector("stock", 2, Named::<5>).await.map(drop).unwrap_err();
        assert!(other.to_string().contains("a table \"stock\" exists"), "{other}");
    })
    .await;
}

/// Executes a statement, as an administrator does.
struct Statement(&'static str);

impl SqlProjection for Statement {
    type Event = OrderEvent;

    fn set_up(&self) -> Vec<Sql> {
        vec![Sql::new(self.0)]
    }

    fn project(&self, _: EventNotification<OrderEvent>) -> Result<Vec<Sql>, HandlerError> {
        Ok(Vec::new())
    }
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

//! Versions on PostgreSQL: readers in transactions, privileges, poolers.

use std::time::Duration;

use es_core::ErrorKind;
use es_factory::{InfrastructureFactory, Sql};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use crate::{
    sales::{Sales, all_after, append, mails, process, projector, read},
    support::server::Server,
};

/// Versions 1 and 2, which have processed one notification.
async fn two_versions(factory: &InfrastructureFactory) {
    append(factory, 1).await;
    for version in [1, 2] {
        process(&mut projector(factory, version).await, &all_after(factory, 0).await, 0).await.unwrap();
    }
}

async fn run(connection: &mut PgConnection, text: String) -> Vec<PgRow> {
    sqlx::query(AssertSqlSafe(text)).persistent(false).fetch_all(connection).await.unwrap()
}

/// A reader of two views in one transaction of READ COMMITTED sees one version, though the switch happens
/// between its statements.
#[tokio::test]
async fn a_transaction_of_postgres_reads_one_version() {
    let Some(server) = Server::with_schema().await else { return };
    let factory = server.factory(&[]);
    two_versions(&factory).await;
    let schema = &server.schema;
    let mut reader = server.connect().await;
    let mut run = async |text: String| run(&mut reader, text).await;
    run("BEGIN".to_owned()).await;
    let version = |rows: Vec<PgRow>| rows[0].get::<i64, _>(0);
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
    factory.close().await.unwrap();
    drop(reader);
    server.drop_schema().await;
}

#[tokio::test]
async fn a_view_that_is_created_anew_keeps_its_owner_options_and_privileges() {
    let Some(server) = Server::with_schema().await else { return };
    let factory = server.factory(&[]);
    two_versions(&factory).await;
    let (schema, mut connection) = (&server.schema, server.connect().await);
    let role = format!("{schema}_owner");
    for statement in [
        format!("CREATE ROLE {role}"),
        format!("GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"),
        format!("GRANT SELECT ON {schema}.sales TO {role} WITH GRANT OPTION"),
        format!("ALTER VIEW {schema}.sales OWNER TO {role}"),
        format!("ALTER VIEW {schema}.sales SET (security_barrier = true)"),
        format!("GRANT SELECT ON {schema}.sales TO PUBLIC"),
    ] {
        run(&mut connection, statement).await;
    }
    let query = format!(
        "SELECT pg_get_userbyid(relowner)::text || reloptions::text || relacl::text FROM pg_class \
         WHERE oid = '{schema}.sales'::regclass"
    );
    let mut state = async || run(&mut connection, query.clone()).await[0].get::<String, _>(0);
    let before = state().await;
    // To version 2, the view is replaced; a column less, and it is created anew.
    factory.projections().switch("sales", 2, 0).await.unwrap();
    assert_eq!(state().await, before);
    factory.projections().switch("sales", 1, 0).await.unwrap();
    assert_eq!(state().await, before);
    factory.close().await.unwrap();
    run(&mut connection, format!("DROP OWNED BY {role}")).await;
    run(&mut connection, format!("DROP ROLE {role}")).await;
    drop(connection);
    server.drop_schema().await;
}

/// The server refuses a statement that was prepared for a view with other columns.
#[tokio::test]
async fn readers_of_all_columns_go_on_after_a_switch() {
    let Some(server) = Server::with_schema().await else { return };
    let factory = server.factory(&[("POSTGRES_POOL_SIZE", "3")]);
    two_versions(&factory).await;
    let select = || factory.query::<Vec<Option<i64>>>(Sql::new("SELECT * FROM sales"));
    // Several connections have it prepared.
    let (first, _, _) = tokio::join!(select(), select(), select());
    assert_eq!(first.unwrap(), [[Some(1), Some(1)]]);
    factory.projections().switch("sales", 2, 0).await.unwrap();
    let (first, second, third) = tokio::join!(select(), select(), select());
    for rows in [first, second, third] {
        assert_eq!(rows.unwrap(), [[Some(1), Some(2), None]]);
    }
    factory.close().await.unwrap();
    server.drop_schema().await;
}

#[tokio::test]
async fn behind_a_pooler_nothing_is_left_in_a_session() {
    let Some(server) = Server::with_schema().await else { return };
    let settings = |pooler| {
        [("POSTGRES_POOL_SIZE", "1"), ("POSTGRES_MAX_OVERFLOW", "0"), ("POSTGRES_TRANSACTION_POOLER", pooler)]
    };
    let kept = async |factory: &InfrastructureFactory| {
        let query = "SELECT name FROM pg_prepared_statements \
                     UNION ALL SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        factory.query::<String>(Sql::new(query)).await.unwrap()
    };
    let factory = server.factory(&settings("y"));
    two_versions(&factory).await;
    factory.projections().switch("sales", 2, 0).await.unwrap();
    assert_eq!(kept(&factory).await, <[String; 0]>::default());
    factory.close().await.unwrap();

    let factory = server.factory(&settings("n"));
    factory.projections().rollback("sales").await.unwrap();
    assert_ne!(kept(&factory).await, <[String; 0]>::default());
    factory.close().await.unwrap();
    server.drop_schema().await;
}

#[tokio::test]
async fn applications_of_one_schema_do_not_change_projections_of_each_other() {
    let Some(server) = Server::with_schema().await else { return };
    let factory = server.factory(&[]);
    two_versions(&factory).await;
    let settings = server.settings().into_iter();
    let settings = settings.map(|(name, value)| (name.replacen("BANK_", "", 1), value));
    let other = InfrastructureFactory::builder("Shop").environment(settings).build().unwrap();
    assert!(other.projections().all().await.unwrap().is_empty());
    let refused = other.versioned_projector("sales", 1, Sales).await.map(drop).unwrap_err();
    assert!(refused.to_string().contains("another application"), "{refused}");
    for (change, error) in [
        ("switch", other.projections().switch("sales", 2, i64::MAX).await.unwrap_err()),
        ("reset", other.projections().reset("sales", 1).await.unwrap_err()),
    ] {
        assert_eq!(error.kind(), ErrorKind::Programming, "{change}");
    }
    assert_eq!(read(&factory).await, [(1, 1, 1)]);
    assert_eq!(mails(&factory).await, [1]);
    factory.close().await.unwrap();
    other.close().await.unwrap();
    server.drop_schema().await;
}

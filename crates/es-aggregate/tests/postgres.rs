//! Contending commands on PostgreSQL; on a real server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod support;

use std::{env, time::Duration};

use es_aggregate::SnapshotPolicy;
use es_core::{EventRange, Metadata, Snapshot, uuid::Uuid};
use es_postgres::{NotificationOrdering, PostgresDatastore, PostgresOptions};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use support::{
    A, Account, accounts, contend, eventually, process_manager::decides_again_after_a_conflict, store,
};

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"))
}

async fn execute(statement: &str) {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&setting("POSTGRES_HOST"))
        .port(setting("POSTGRES_PORT").parse().unwrap())
        .database(&setting("POSTGRES_DBNAME"))
        .username(&setting("POSTGRES_USER"))
        .password(&setting("POSTGRES_PASSWORD"));
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
}

async fn open(schema: &str, ordering: NotificationOrdering) -> PostgresDatastore {
    let options = PostgresOptions::new(setting("POSTGRES_DBNAME"))
        .host(setting("POSTGRES_HOST"))
        .port(setting("POSTGRES_PORT").parse().unwrap())
        .user(setting("POSTGRES_USER"))
        .password(setting("POSTGRES_PASSWORD"));
    options.schema(schema).ordering(ordering).open().await.unwrap()
}

#[tokio::test]
async fn a_process_manager_decides_again_after_a_conflict() {
    if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return;
    }
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = format!("aggregate_{}", Uuid::new_v4().simple());
        execute(&format!("CREATE SCHEMA {schema}")).await;
        let datastore = open(&schema, ordering).await;
        let bank = datastore.process_recorder("bank").await.unwrap();
        let fees = datastore.process_recorder("fees").await.unwrap();
        decides_again_after_a_conflict(bank, fees).await;
        datastore.close().await.unwrap();
        execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
    }
}

/// Two datastores are to each other as two processes are.
#[tokio::test(flavor = "multi_thread")]
async fn contending_commands_of_two_processes_all_succeed() {
    if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return;
    }
    for ordering in [NotificationOrdering::Serialized, NotificationOrdering::Parallel] {
        let schema = format!("aggregate_{}", Uuid::new_v4().simple());
        execute(&format!("CREATE SCHEMA {schema}")).await;
        let mut repositories = Vec::new();
        for _ in 0..2 {
            let datastore = open(&schema, ordering).await;
            let snapshots = store(datastore.aggregate_recorder("bank", "snapshots").await.unwrap());
            let accounts = accounts(datastore.application_recorder("bank").await.unwrap())
                .snapshots(snapshots, SnapshotPolicy::every(7))
                .retry_for(Duration::from_secs(600));
            repositories.push((accounts, datastore));
        }
        let [(one, first), (other, second)] = repositories.try_into().unwrap();
        contend(&[one.clone(), other]).await;

        // The snapshot of this command is written by a task of its own.
        let to_63 = |_: &Account| Ok::<_, ()>([1; 3].map(|cents| support::Credited { cents }));
        one.execute(A, Metadata::new(), to_63).await.unwrap();
        let snapshots = store(first.aggregate_recorder("bank", "snapshots").await.unwrap());
        let newest = EventRange::all().desc().limit(1);
        eventually(async || {
            let newest = snapshots.get::<Snapshot<Account>>(A, newest).await.unwrap();
            newest.first().is_some_and(|snapshot| snapshot.originator_version == 63)
        })
        .await;
        assert_eq!(one.load(A).await.unwrap().state, Account { balance: 63, events: 63 });
        first.close().await.unwrap();
        second.close().await.unwrap();
        execute(&format!("DROP SCHEMA {schema} CASCADE")).await;
    }
}

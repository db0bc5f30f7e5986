//! A database of a test's own on each backend.

use std::env;

use es_persistence::{
    ProcessRecorder, StateMaintenance,
    postgres::{PostgresAggregateRecorder, PostgresDatastore, PostgresOptions, PostgresProcessRecorder},
    sqlite::{SqliteAggregateRecorder, SqliteDatastore, SqliteOptions, SqliteProcessRecorder},
    uuid::Uuid,
};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, SqlSafeStr, postgres::PgConnectOptions};
use tempfile::TempDir;

/// A database on one of the backends, dropped with the value that created it.
pub(crate) trait Database: Sized {
    type Process: ProcessRecorder + StateMaintenance;
    type Snapshots: StateMaintenance;

    /// Creates a database; returns `None` if the tests are configured to run without it.
    async fn create() -> Option<Self>;

    /// Opens a database of another process.
    async fn open(name: &str) -> Self;

    fn name(&self) -> &str;

    async fn process_recorder(&self) -> Self::Process;

    async fn snapshot_recorder(&self) -> Self::Snapshots;
}

pub(crate) struct Sqlite {
    name: String,
    datastore: SqliteDatastore,
    _directory: Option<TempDir>,
}

impl Database for Sqlite {
    type Process = SqliteProcessRecorder;
    type Snapshots = SqliteAggregateRecorder;

    async fn create() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let created = Self::open(directory.path().join("events.db").to_str().unwrap()).await;
        Some(Self { _directory: Some(directory), ..created })
    }

    async fn open(name: &str) -> Self {
        let datastore = SqliteOptions::new(name).open().await.unwrap();
        Self { name: name.to_owned(), datastore, _directory: None }
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn process_recorder(&self) -> SqliteProcessRecorder {
        self.datastore.process_recorder().await.unwrap()
    }

    async fn snapshot_recorder(&self) -> SqliteAggregateRecorder {
        self.datastore.aggregate_recorder("snapshots").await.unwrap()
    }
}

/// A schema.
pub(crate) struct Postgres {
    name: String,
    datastore: PostgresDatastore,
    is_owned: bool,
}

impl Database for Postgres {
    type Process = PostgresProcessRecorder;
    type Snapshots = PostgresAggregateRecorder;

    async fn create() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let name = format!("test_{}", Uuid::new_v4().simple());
        run(&format!("CREATE SCHEMA {name}")).await;
        let mut created = Self::open(&name).await;
        created.is_owned = true;
        Some(created)
    }

    async fn open(name: &str) -> Self {
        let options = PostgresOptions::new(setting("POSTGRES_DBNAME"))
            .host(setting("POSTGRES_HOST"))
            .port(setting("POSTGRES_PORT").parse().unwrap())
            .user(setting("POSTGRES_USER"))
            .password(setting("POSTGRES_PASSWORD"))
            .schema(name);
        let datastore = options.open().await.unwrap();
        Self { name: name.to_owned(), datastore, is_owned: false }
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn process_recorder(&self) -> PostgresProcessRecorder {
        self.datastore.process_recorder("bank").await.unwrap()
    }

    async fn snapshot_recorder(&self) -> PostgresAggregateRecorder {
        self.datastore.aggregate_recorder("bank", "snapshots").await.unwrap()
    }
}

impl Drop for Postgres {
    /// On a thread and a runtime of its own: the test's may be ending.
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let statement = format!("DROP SCHEMA {} CASCADE", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(&statement));
        });
        let _ = dropped.join();
    }
}

async fn run(statement: &str) {
    let server = PgConnectOptions::new_without_pgpass()
        .host(&setting("POSTGRES_HOST"))
        .port(setting("POSTGRES_PORT").parse().unwrap())
        .database(&setting("POSTGRES_DBNAME"))
        .username(&setting("POSTGRES_USER"))
        .password(&setting("POSTGRES_PASSWORD"));
    let mut connection: PgConnection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement).into_sql_str()).execute(&mut connection).await.unwrap();
}

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need PostgreSQL; run `cargo xtask test`, which brings it")
    })
}

/// Makes a test of each generic function, for each backend.
macro_rules! on_each_backend {
    ($($test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(<crate::database::Sqlite as crate::database::Database>::create().await.unwrap()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(database) = <crate::database::Postgres as crate::database::Database>::create().await {
                    super::$test(database).await;
                }
            })*
        }
    };
}
pub(crate) use on_each_backend;

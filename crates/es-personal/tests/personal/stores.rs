//! The key stores that are tested.

use std::env;

use es_core::uuid::Uuid;
use es_personal::{KeyStore, MemoryKeyStore, PostgresKeyStore, SqliteKeyStore};
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgConnection, PgPool, SqlSafeStr,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tempfile::TempDir;

/// A place where keys are stored, with the stores of any number of processes.
pub(crate) trait Place {
    type Store: KeyStore;

    /// Opens the store of another process.
    async fn open(&self) -> Self::Store;
}

pub(crate) struct Memory(MemoryKeyStore);

impl Memory {
    pub(crate) async fn create() -> Option<Self> {
        Some(Self(MemoryKeyStore::new()))
    }
}

impl Place for Memory {
    type Store = MemoryKeyStore;

    async fn open(&self) -> MemoryKeyStore {
        self.0.clone()
    }
}

pub(crate) struct Sqlite(TempDir);

impl Sqlite {
    pub(crate) async fn create() -> Option<Self> {
        Some(Self(tempfile::tempdir().unwrap()))
    }
}

impl Place for Sqlite {
    type Store = SqliteKeyStore;

    async fn open(&self) -> SqliteKeyStore {
        SqliteKeyStore::open(self.0.path().join("keys.db")).await.unwrap()
    }
}

/// A schema.
pub(crate) struct Postgres {
    schema: String,
}

impl Postgres {
    /// Creates a schema; returns `None` if the tests are configured to run without PostgreSQL.
    pub(crate) async fn create() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let schema = format!("test_{}", Uuid::new_v4().simple());
        run(&format!("CREATE SCHEMA {schema}")).await;
        Some(Self { schema })
    }

    pub(crate) async fn pool(&self) -> PgPool {
        self.pool_with(server()).await
    }

    /// The store of a process whose transactions cannot write, as on a standby server.
    pub(crate) async fn open_read_only(&self) -> PostgresKeyStore {
        let server = server().options([("default_transaction_read_only", "on")]);
        PostgresKeyStore::open(self.pool_with(server).await).await.unwrap()
    }

    async fn pool_with(&self, server: PgConnectOptions) -> PgPool {
        let options = server.options([("search_path", &self.schema)]);
        PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
    }
}

impl Place for Postgres {
    type Store = PostgresKeyStore;

    async fn open(&self) -> PostgresKeyStore {
        PostgresKeyStore::open(self.pool().await).await.unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        run_elsewhere(format!("DROP SCHEMA {} CASCADE", self.schema));
    }
}

/// A database of its own.
pub(crate) struct PostgresDatabase {
    pub(crate) name: String,
}

impl PostgresDatabase {
    /// Creates a database; returns `None` if the tests are configured to run without PostgreSQL.
    pub(crate) async fn create() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let name = format!("test_{}", Uuid::new_v4().simple());
        run(&format!("CREATE DATABASE {name}")).await;
        Some(Self { name })
    }

    /// The URL of the database, with a password.
    pub(crate) fn url(&self) -> String {
        let [host, port, user, password] =
            ["HOST", "PORT", "USER", "PASSWORD"].map(|name| setting(&format!("POSTGRES_{name}")));
        format!("postgres://{user}:{password}@{host}:{port}/{}", self.name)
    }
}

impl Drop for PostgresDatabase {
    fn drop(&mut self) {
        run_elsewhere(format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// Runs a statement on a thread and a runtime of its own: the test's may be ending.
fn run_elsewhere(statement: String) {
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&statement));
    });
    let _ = run.join();
}

async fn run(statement: &str) {
    let mut connection: PgConnection = server().connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement).into_sql_str()).execute(&mut connection).await.unwrap();
}

fn server() -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&setting("POSTGRES_HOST"))
        .port(setting("POSTGRES_PORT").parse().unwrap())
        .database(&setting("POSTGRES_DBNAME"))
        .username(&setting("POSTGRES_USER"))
        .password(&setting("POSTGRES_PASSWORD"))
}

pub(crate) fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need PostgreSQL; run `cargo xtask test`, which brings it")
    })
}

/// Makes a test of each generic function, for each store.
macro_rules! on_each_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::stores::Memory::create().await.unwrap()).await;
            })*
        }

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::stores::Sqlite::create().await.unwrap()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(place) = crate::stores::Postgres::create().await {
                    super::$test(place).await;
                }
            })*
        }
    };
}
pub(crate) use on_each_store;

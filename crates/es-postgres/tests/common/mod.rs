//! Shared code of the tests: the server, a schema for each test, events.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::print_stdout,
    reason = "no test uses all of it, and some are skipped"
)]

pub mod cluster;
pub mod disk;
pub mod link;
pub mod load;
pub mod pooler;
pub mod prelude;
pub mod proxy;

use std::env;

use es_core::{Bytes, StoredEvent, Topic, uuid::Uuid};
use es_postgres::{PostgresDatastore, PostgresOptions};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, SqlSafeStr, postgres::PgConnectOptions,
};

/// The server that `cargo xtask test` has started.
#[derive(Clone, Debug)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub user: String,
    pub password: String,
}

impl Server {
    pub fn from_environment() -> Self {
        let setting = |name: &str| {
            env::var(name).unwrap_or_else(|_| {
                panic!(
                    "{name} is not set: these tests need PostgreSQL; run `cargo xtask test`, which brings it"
                )
            })
        };
        Self {
            host: setting("POSTGRES_HOST"),
            port: setting("POSTGRES_PORT").parse().expect("POSTGRES_PORT is a port"),
            dbname: setting("POSTGRES_DBNAME"),
            user: setting("POSTGRES_USER"),
            password: setting("POSTGRES_PASSWORD"),
        }
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions::new(&self.dbname)
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
    }

    /// A connection without any of the library.
    pub async fn connect(&self) -> PgConnection {
        self.try_connect().await.unwrap()
    }

    pub async fn try_connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.dbname)
            .username(&self.user)
            .password(&self.password)
            // A startup parameter that poolers refuse.
            .extra_float_digits(None);
        options.connect().await
    }
}

/// A schema of a test's own, dropped with all that is in it when the test ends, however it ends.
#[derive(Debug)]
pub struct Schema {
    pub server: Server,
    pub name: String,
}

impl Schema {
    pub async fn create() -> Self {
        let schema =
            Self { server: Server::from_environment(), name: format!("test_{}", Uuid::new_v4().simple()) };
        let mut connection = schema.server.connect().await;
        run(&mut connection, &format!("CREATE SCHEMA {}", schema.name)).await;
        connection.close().await.unwrap();
        schema
    }

    pub fn options(&self) -> PostgresOptions {
        self.server.options().schema(&self.name)
    }

    pub async fn open(&self) -> PostgresDatastore {
        self.options().open().await.unwrap()
    }

    pub async fn connect(&self) -> PgConnection {
        self.server.connect().await
    }

    /// The quoted name of a table.
    pub fn table(&self, name: &str) -> String {
        format!("{}.\"{name}\"", self.name)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        clean_up(self.server.clone(), format!("DROP SCHEMA {} CASCADE", self.name));
    }
}

/// A database of a test's own, for what is set or stored outside of schemas.
#[derive(Debug)]
pub struct Database {
    pub server: Server,
}

impl Database {
    pub async fn create() -> Self {
        let mut server = Server::from_environment();
        let mut connection = server.connect().await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        run(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        connection.close().await.unwrap();
        server.dbname = name;
        Self { server }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        clean_up(Server::from_environment(), format!("DROP DATABASE {} WITH (FORCE)", self.server.dbname));
    }
}

/// A role of a test's own, with no rights but to use a schema; dropped before the schema is.
#[derive(Debug)]
pub struct Role {
    pub server: Server,
    pub name: String,
}

impl Role {
    pub async fn create(schema: &Schema) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut connection = schema.connect().await;
        let create = format!(
            "CREATE ROLE {name} LOGIN PASSWORD 'of-a-test'; GRANT USAGE ON SCHEMA {} TO {name}",
            schema.name
        );
        run(&mut connection, &create).await;
        let server = Server { user: name.clone(), password: "of-a-test".to_owned(), ..schema.server.clone() };
        Self { server, name }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let drop = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        clean_up(Server::from_environment(), drop);
    }
}

/// Runs statements however the test ends: on a thread and a runtime of its own, because the test's
/// may be ending.
fn clean_up(server: Server, statements: String) {
    let cleaned = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = server.connect().await;
            // A session of the test that still holds a lock must not block this without limit.
            let _ = connection.execute("SET lock_timeout = '20s'").await;
            let _ = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await;
        });
    });
    let _ = cleaned.join();
}

/// Runs statements.
pub async fn run(connection: &mut PgConnection, statements: &str) {
    let statements = AssertSqlSafe(statements).into_sql_str();
    sqlx::raw_sql(statements).execute(connection).await.unwrap();
}

/// The single value that a query answers with.
pub async fn scalar<T>(connection: &mut PgConnection, query: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await.unwrap()
}

pub fn event(originator_id: Uuid, originator_version: i64) -> StoredEvent {
    StoredEvent {
        originator_id,
        originator_version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::from(format!("{{\"version\":{originator_version}}}")),
    }
}

/// The first event of a new aggregate.
pub fn first() -> StoredEvent {
    event(Uuid::new_v4(), 1)
}

/// Waits until a query of the server returns true.
pub async fn until(connection: &mut PgConnection, query: &str) {
    for _ in 0..2_000 {
        if scalar::<bool>(connection, query).await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("never came true: {query}");
}

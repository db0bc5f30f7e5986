//! A dump restored into a database of its own, which is dropped when the test ends, also after a panic.

use std::env;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqlSafeStr, postgres::PgConnectOptions};
use uuid::Uuid;

pub(crate) struct Restored {
    server: PgConnectOptions,
    name: String,
}

impl Restored {
    /// Returns `None` if the tests are configured to run without PostgreSQL.
    pub(crate) async fn from_dump(dump: &str) -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let server = PgConnectOptions::new_without_pgpass()
            .host(&setting("POSTGRES_HOST"))
            .port(setting("POSTGRES_PORT").parse().expect("POSTGRES_PORT is a port"))
            .database(&setting("POSTGRES_DBNAME"))
            .username(&setting("POSTGRES_USER"))
            .password(&setting("POSTGRES_PASSWORD"));
        let name = format!("test_{}", Uuid::new_v4().simple());
        run(&server, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        let restored = Self { server: server.clone(), name };
        // Lines with this prefix are psql commands.
        let statements: Vec<_> = dump.lines().filter(|line| !line.starts_with('\\')).collect();
        run(&server.database(&restored.name), &statements.join("\n")).await;
        Some(restored)
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let given = ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_PASSWORD"];
        let mut settings: Vec<_> = given.map(|name| (name.to_owned(), setting(name))).into();
        settings.push(("POSTGRES_DBNAME".to_owned(), self.name.clone()));
        settings
    }
}

impl Drop for Restored {
    /// On a thread and a runtime of its own: the test's may be ending.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(&server, &format!("DROP DATABASE {name} WITH (FORCE)")));
        });
        let _ = dropped.join();
    }
}

async fn run(server: &PgConnectOptions, statements: &str) {
    let mut connection: PgConnection = server.connect().await.unwrap();
    let statements = AssertSqlSafe(statements).into_sql_str();
    sqlx::raw_sql(statements).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn setting(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need PostgreSQL; run `cargo xtask test`, which brings it")
    })
}

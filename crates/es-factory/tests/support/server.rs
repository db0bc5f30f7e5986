//! The PostgreSQL server of the tests.

use std::env;

use es_core::uuid::Uuid;
use es_factory::InfrastructureFactory;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

/// The settings of the test server, and a schema of the test's own.
pub(crate) struct Server {
    settings: Vec<(String, String)>,
    pub(crate) schema: String,
}

impl Server {
    /// Returns `None` if the tests are configured to run without PostgreSQL.
    pub(crate) async fn with_schema() -> Option<Self> {
        if env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
            return None;
        }
        let schema = format!("factory_{}", Uuid::new_v4().simple());
        let names =
            ["POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DBNAME", "POSTGRES_USER", "POSTGRES_PASSWORD"];
        let set = |name: &str| {
            env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use `cargo xtask test`"))
        };
        let mut settings: Vec<_> = names.iter().map(|name| (format!("BANK_{name}"), set(name))).collect();
        settings.push(("PERSISTENCE_MODULE".to_owned(), "eventsourcing.postgres:Factory".to_owned()));
        settings.push(("POSTGRES_SCHEMA".to_owned(), schema.clone()));
        let server = Self { settings, schema };
        server.execute(&format!("CREATE SCHEMA {}", server.schema)).await;
        Some(server)
    }

    pub(crate) fn factory(&self, more: &[(&str, &str)]) -> InfrastructureFactory {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings = self.settings.iter().cloned().chain(more);
        InfrastructureFactory::builder("Bank").environment(settings).build().unwrap()
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    pub(crate) async fn drop_schema(self) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.schema)).await;
    }

    async fn execute(&self, statement: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    }

    /// Connects to the server, in the default schema.
    pub(crate) async fn connect(&self) -> PgConnection {
        let set = |name: &str| env::var(name).unwrap();
        let options = PgConnectOptions::new_without_pgpass()
            .host(&set("POSTGRES_HOST"))
            .port(set("POSTGRES_PORT").parse().unwrap())
            .database(&set("POSTGRES_DBNAME"))
            .username(&set("POSTGRES_USER"))
            .password(&set("POSTGRES_PASSWORD"));
        PgConnection::connect_with(&options).await.unwrap()
    }
}

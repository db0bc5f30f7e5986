//! The schemas with the tables of an experiment, on the server that the environment names.

use anyhow::{Context, Result};
use es_core::StoredEvent;
use es_postgres::PostgresOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use super::bare_postgres::copy;

const CREATE: &str = "
    CREATE TABLE stored_events (originator_id uuid NOT NULL, originator_version bigint NOT NULL, topic text,
        state bytea, notification_id bigserial)";
const INDEX: &str = "
    ALTER TABLE stored_events ADD PRIMARY KEY (originator_id, originator_version);
    CREATE UNIQUE INDEX stored_events_notification_id_idx ON stored_events (notification_id ASC)";

/// One row for each application, as our recorders create it.
const CREATE_TRACKING: &str = "
    CREATE TABLE tracking (application_name text, notification_id bigint, PRIMARY KEY (application_name))";

/// The prefix of the names of all schemas.
const PREFIX: &str = "es_bench_";

/// The settings that decide the cost of a commit.
const DURABILITY: [&str; 7] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_sync_method",
    "shared_buffers",
    "max_wal_size",
];

/// A separate schema on the server that the environment names, deleted after the measurement.
#[derive(Clone)]
pub(crate) struct Schema {
    server: Server,
    name: String,
}

/// The server that the environment names.
#[derive(Clone)]
struct Server {
    host: String,
    port: u16,
    dbname: String,
    user: String,
    password: String,
}

impl Schema {
    /// Creates an empty schema named after its owner. Replaces one that an earlier run may have left.
    pub(crate) async fn create(owner: &str) -> Result<Self> {
        let schema = Self::existing(owner)?;
        schema.drop().await?;
        schema.execute(format!("CREATE SCHEMA \"{}\"", schema.name)).await?;
        Ok(schema)
    }

    /// Returns the schema of this owner, or of this name, without creating it.
    pub(crate) fn existing(owner: &str) -> Result<Self> {
        let letters = owner.trim_start_matches(PREFIX).replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        Ok(Self { server: Server::from_environment()?, name: format!("{PREFIX}{}", letters.to_lowercase()) })
    }

    /// Deletes all schemas that this run or an earlier one created here.
    pub(crate) async fn drop_all() -> Result<()> {
        let mut connection = Self::existing("")?.connect().await?;
        let select =
            sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE starts_with(nspname, $1)");
        let names: Vec<String> = select.bind(PREFIX).fetch_all(&mut connection).await?;
        for name in names {
            Self::existing(&name)?.drop().await?;
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the settings of our recorder for this schema; all others are the defaults.
    pub(crate) fn options(&self) -> PostgresOptions {
        let Server { host, port, dbname, user, password } = self.server.clone();
        PostgresOptions::new(dbname).host(host).port(port).user(user).password(password).schema(&self.name)
    }

    pub(crate) async fn create_table(&self) -> Result<()> {
        self.execute(CREATE.to_owned()).await?;
        self.execute(INDEX.to_owned()).await?;
        self.execute(CREATE_TRACKING.to_owned()).await
    }

    /// Creates a schema whose table has these events, in the state that autovacuum would eventually reach.
    /// The indexes are built last, which takes a fraction of the time.
    pub(crate) async fn filled(owner: &str, events: impl Iterator<Item = StoredEvent>) -> Result<Self> {
        let schema = Self::create(owner).await?;
        schema.execute(CREATE.to_owned()).await?;
        copy(&mut schema.connect().await?, events).await?;
        schema.execute(INDEX.to_owned()).await?;
        schema.execute("VACUUM (ANALYZE) stored_events".to_owned()).await?;
        schema.execute("CHECKPOINT".to_owned()).await?;
        Ok(schema)
    }

    pub(crate) async fn durability(&self) -> Result<String> {
        let mut connection = self.connect().await?;
        let mut settings = Vec::new();
        for name in DURABILITY {
            let select = sqlx::query_scalar("SELECT current_setting($1)").bind(name);
            let value: String = select.fetch_one(&mut connection).await?;
            settings.push(format!("{name}={value}"));
        }
        Ok(settings.join(", "))
    }

    pub(crate) async fn drop(&self) -> Result<()> {
        self.execute(format!("DROP SCHEMA IF EXISTS \"{}\" CASCADE", self.name)).await
    }

    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        self.connect_options().connect().await.context("cannot connect to PostgreSQL")
    }

    /// Returns the connect options of sqlx for this schema.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        let Server { host, port, dbname, user, password } = &self.server;
        PgConnectOptions::new_without_pgpass()
            .host(host)
            .port(*port)
            .database(dbname)
            .username(user)
            .password(password)
            .options([("search_path", self.name.as_str()), ("client_min_messages", "warning")])
            .disable_statement_logging()
    }

    async fn execute(&self, statements: String) -> Result<()> {
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

impl Server {
    fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            let value = std::env::var(name);
            value.with_context(|| format!("{name} is not set: name a server, or leave PostgreSQL out"))
        };
        Ok(Self {
            host: variable("POSTGRES_HOST")?,
            port: variable("POSTGRES_PORT")?.parse().context("POSTGRES_PORT is not a port")?,
            dbname: variable("POSTGRES_DBNAME")?,
            user: variable("POSTGRES_USER")?,
            password: variable("POSTGRES_PASSWORD")?,
        })
    }
}

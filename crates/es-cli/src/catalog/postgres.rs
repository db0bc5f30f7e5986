//! The catalog of a PostgreSQL database.

use es_core::Tracking;
use es_factory::Environment;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
};

use super::facts::{EventCounts, Layout, Overview, TopicCount, Tracker};
use crate::failure::{Failure, chain};

/// The tables of an application in a PostgreSQL database.
pub(crate) struct PostgresCatalog {
    connection: PgConnection,
    location: String,
    events: Table,
    snapshots: Table,
    tracking: Table,
}

/// The name of a table, as text and quoted.
struct Table {
    name: String,
    quoted: String,
}

type Read<'c> = Transaction<'c, Postgres>;

impl PostgresCatalog {
    pub(super) async fn open(environment: &Environment) -> Result<Self, Failure> {
        let schema = environment.get("POSTGRES_SCHEMA").unwrap_or("public");
        let table = |suffix: &str, unnamed: &str| match environment.application_name() {
            "" => Table::new(schema, unnamed),
            application => Table::new(schema, &format!("{}_{suffix}", application.to_lowercase())),
        };
        let (connection, host) = connect(environment).await?;
        Ok(Self {
            connection,
            location: format!("{host}/{}, schema {schema}", environment.required("POSTGRES_DBNAME")?),
            events: table("events", "stored_events"),
            snapshots: table("snapshots", "stored_snapshots"),
            tracking: table("tracking", "notification_tracking"),
        })
    }

    pub(super) async fn overview(&mut self) -> Result<Overview, Failure> {
        let Self { connection, location, events, snapshots, tracking } = self;
        let mut read = begin(connection).await?;
        let version = text(&mut read, "SELECT current_setting('server_version')").await?;
        let snapshot_count = match exists(&mut read, snapshots).await? {
            true => Some(integer(&mut read, &format!("SELECT count(*) FROM {}", snapshots.quoted)).await?),
            false => None,
        };
        let has_tracking = exists(&mut read, tracking).await?;
        let tracking_layout = match has_tracking {
            true => Some(Layout::of_key_columns(integer(&mut read, &key_columns(tracking)).await?)),
            false => None,
        };
        let mut bytes = 0;
        for table in [&*events, snapshots, tracking] {
            bytes += integer(
                &mut read,
                &format!("SELECT coalesce(pg_total_relation_size({}), 0)", table.regclass()),
            )
            .await?;
        }
        Ok(Overview {
            backend: "postgres",
            version,
            location: location.clone(),
            bytes,
            journal_mode: None,
            events: event_counts(&mut read, events).await?,
            snapshots: snapshot_count,
            tracking_layout,
            trackers: trackers(&mut read, tracking).await?,
        })
    }

    pub(super) async fn topics(&mut self) -> Result<Vec<TopicCount>, Failure> {
        let mut read = begin(&mut self.connection).await?;
        let sql = format!(
            "SELECT coalesce(topic, ''), count(*), min(notification_id), max(notification_id), \
             coalesce(sum(octet_length(state)), 0)::bigint FROM {} GROUP BY topic ORDER BY topic COLLATE \"C\"",
            self.events.quoted
        );
        let topic = |row: PgRow| {
            Ok(TopicCount {
                topic: row.try_get(0)?,
                count: row.try_get(1)?,
                first_id: row.try_get(2)?,
                last_id: row.try_get(3)?,
                bytes: row.try_get(4)?,
            })
        };
        rows(&mut read, &sql, topic).await
    }

    pub(super) async fn trackers(&mut self) -> Result<Vec<Tracker>, Failure> {
        let mut read = begin(&mut self.connection).await?;
        trackers(&mut read, &self.tracking).await
    }
}

impl Table {
    fn new(schema: &str, name: &str) -> Self {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        Self { name: name.to_owned(), quoted: format!("{}.{}", quote(schema), quote(name)) }
    }

    /// Returns the table as an expression, which is null if there is no such table.
    fn regclass(&self) -> String {
        format!("to_regclass(E'{}')", self.quoted.replace('\\', "\\\\").replace('\'', "''"))
    }
}

/// Connects to the first host that answers; returns its name and port.
async fn connect(environment: &Environment) -> Result<(PgConnection, String), Failure> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .username(environment.required("POSTGRES_USER")?)
        .password(environment.required("POSTGRES_PASSWORD")?)
        .database(environment.required("POSTGRES_DBNAME")?)
        .application_name("es")
        // A pooler in transaction mode has no prepared statements.
        .statement_cache_capacity(0);
    if let Some(mode) = environment.get("POSTGRES_SSLMODE") {
        let mode: PgSslMode =
            mode.parse().map_err(|_| Failure::usage("POSTGRES_SSLMODE has an unknown value"))?;
        options = options.ssl_mode(mode);
    }
    if let Some(certificate) = environment.get("POSTGRES_SSLROOTCERT") {
        options = options.ssl_root_cert(certificate);
    }
    let hosts: Vec<_> = environment.required("POSTGRES_HOST")?.split(',').map(str::trim).collect();
    let ports: Vec<_> =
        environment.get("POSTGRES_PORT").unwrap_or("5432").split(',').map(str::trim).collect();
    let mut failure = Failure::usage("POSTGRES_HOST names no host");
    for (index, host) in hosts.iter().enumerate() {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or_default();
        let number = port.parse().map_err(|_| Failure::usage("POSTGRES_PORT is no port"))?;
        match PgConnection::connect_with(&options.clone().host(host).port(number)).await {
            Ok(connection) => return Ok((connection, format!("{host}:{port}"))),
            Err(error) => {
                failure = Failure::unavailable(format!("connecting to {host}:{port}: {}", chain(&error)))
                    .with_hint("check that the server runs, and its host and port");
            }
        }
    }
    Err(failure)
}

/// Begins a transaction that reads one state of the database.
async fn begin(connection: &mut PgConnection) -> Result<Read<'_>, Failure> {
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    connection.begin_with(begin).await.map_err(|error| failed(&error))
}

fn failed(error: &sqlx::Error) -> Failure {
    let failure = Failure::new(chain(error));
    match error.as_database_error().and_then(<dyn DatabaseError>::code).as_deref() {
        Some("42P01") => Failure::usage(chain(error))
            .with_hint("name the application with --application: its tables have that prefix"),
        Some("42501") => failure.with_hint("the role needs SELECT on the tables"),
        _ => failure,
    }
}

async fn rows<T>(
    read: &mut Read<'_>,
    sql: &str,
    parse: impl Fn(PgRow) -> Result<T, sqlx::Error>,
) -> Result<Vec<T>, Failure> {
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut **read).await;
    let parsed = rows.and_then(|rows| rows.into_iter().map(parse).collect());
    parsed.map_err(|error| failed(&error))
}

async fn integer(read: &mut Read<'_>, sql: &str) -> Result<i64, Failure> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut **read).await.map_err(|error| failed(&error))
}

async fn text(read: &mut Read<'_>, sql: &str) -> Result<String, Failure> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut **read).await.map_err(|error| failed(&error))
}

async fn exists(read: &mut Read<'_>, table: &Table) -> Result<bool, Failure> {
    let sql = format!("SELECT {} IS NOT NULL", table.regclass());
    let exists = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut **read).await;
    exists.map_err(|error| failed(&error))
}

/// Returns the query for the number of columns of a primary key.
fn key_columns(table: &Table) -> String {
    format!(
        "SELECT coalesce(max(indnkeyatts), 0)::bigint FROM pg_index WHERE indisprimary AND indrelid = {}",
        table.regclass()
    )
}

async fn event_counts(read: &mut Read<'_>, table: &Table) -> Result<EventCounts, Failure> {
    let quoted = &table.quoted;
    let sql = format!(
        "SELECT count(*), min(notification_id), max(notification_id), \
         (SELECT count(*) FROM (SELECT FROM {quoted} GROUP BY originator_id) AS aggregates), \
         count(DISTINCT topic) FROM {quoted}"
    );
    let counts = |row: PgRow| {
        Ok(EventCounts {
            table: table.name.clone(),
            count: row.try_get(0)?,
            first_id: row.try_get(1)?,
            last_id: row.try_get(2)?,
            aggregates: row.try_get(3)?,
            topics: row.try_get(4)?,
        })
    };
    Ok(rows(read, &sql, counts).await?.pop().unwrap_or_default())
}

async fn trackers(read: &mut Read<'_>, table: &Table) -> Result<Vec<Tracker>, Failure> {
    if !exists(read, table).await? {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT application_name, max(notification_id) FROM {} WHERE application_name <> '{}' \
         GROUP BY application_name ORDER BY application_name COLLATE \"C\"",
        table.quoted,
        Tracking::RESERVED_NAME
    );
    rows(read, &sql, |row| Ok(Tracker { name: row.try_get(0)?, position: row.try_get(1)? })).await
}

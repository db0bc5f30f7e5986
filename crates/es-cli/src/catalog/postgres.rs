//! The catalog of a PostgreSQL database.

use es_core::Tracking;
use es_factory::Environment;
use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Postgres, Row, Transaction,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgRow, PgSslMode},
};

#[cfg(feature = "ui")]
use super::facts::IdSelection;
use super::{
    facts::{EventCounts, Gap, Integrity, Layout, Overview, SnapshotFault, TopicCount, Tracker},
    ranking::{Aggregate, Names, Ranking, Selection},
    versions,
};
use crate::failure::{Failure, chain};

/// The tables of an application in a PostgreSQL database.
pub(crate) struct PostgresCatalog {
    connection: PgConnection,
    location: String,
    events: Table,
    snapshots: Table,
    tracking: Table,
    segments: Table,
    /// True if [`integrity`](Self::integrity) has found damage.
    is_damaged: bool,
}

/// The name of a table, as text and quoted.
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) quoted: String,
}

/// The tables of an application.
pub(crate) struct Tables {
    pub(crate) events: Table,
    pub(crate) snapshots: Table,
    pub(crate) tracking: Table,
    /// Those of partitioned consumers.
    pub(crate) segments: Table,
}

type Read<'c> = Transaction<'c, Postgres>;

impl PostgresCatalog {
    pub(super) async fn open(environment: &Environment) -> Result<Self, Failure> {
        let Tables { events, snapshots, tracking, segments } = Tables::of(environment);
        let (connection, host) = connect(environment).await?;
        let schema = schema(environment);
        let location = format!("{host}/{}, schema {schema}", environment.required("POSTGRES_DBNAME")?);
        Ok(Self { connection, location, events, snapshots, tracking, segments, is_damaged: false })
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    pub(super) async fn overview(&mut self) -> Result<Overview, Failure> {
        let Self { connection, location, events, snapshots, tracking, .. } = self;
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

    pub(super) async fn topics(&mut self, first: i64) -> Result<Vec<TopicCount>, Failure> {
        let mut read = begin(&mut self.connection).await?;
        let sql = format!(
            "SELECT coalesce(topic, ''), count(*), min(notification_id), max(notification_id), \
             coalesce(sum(octet_length(state)), 0)::bigint FROM {} WHERE notification_id >= {first} \
             GROUP BY topic ORDER BY topic COLLATE \"C\"",
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

    #[cfg(feature = "ui")]
    pub(super) async fn ids(&mut self, selection: &IdSelection) -> Result<Vec<i64>, Failure> {
        let IdSelection { originator_id, topic, first, last, is_descending, limit } = selection;
        let order = if *is_descending { "DESC" } else { "ASC" };
        let sql = format!(
            "SELECT notification_id FROM {} WHERE notification_id BETWEEN $1 AND $2 \
             AND ($3::uuid IS NULL OR originator_id = $3) AND ($4::text IS NULL OR topic = $4) \
             ORDER BY notification_id {order} LIMIT {limit}",
            self.events.quoted
        );
        let mut read = begin(&mut self.connection).await?;
        let ids =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(first).bind(last).bind(originator_id).bind(topic);
        ids.fetch_all(&mut *read).await.map_err(|error| failed(&error))
    }

    pub(super) async fn trackers(&mut self) -> Result<Vec<Tracker>, Failure> {
        let mut read = begin(&mut self.connection).await?;
        trackers(&mut read, &self.tracking).await
    }

    pub(super) async fn partitioned(&mut self) -> Result<Vec<String>, Failure> {
        let mut read = begin(&mut self.connection).await?;
        if !exists(&mut read, &self.segments).await? {
            return Ok(Vec::new());
        }
        let sql = format!("SELECT DISTINCT consumer_name FROM {}", self.segments.quoted);
        rows(&mut read, &sql, |row| row.try_get(0)).await
    }

    pub(super) async fn last_id(&mut self) -> Result<i64, Failure> {
        let mut read = begin(&mut self.connection).await?;
        last_id(&mut read, &self.events).await
    }

    pub(super) async fn ranking(&mut self, selection: Selection) -> Result<Ranking, Failure> {
        let mut read = begin(&mut self.connection).await?;
        let last_id = last_id(&mut read, &self.events).await?;
        let names = Names { table: &self.events.quoted, id: "notification_id", bytes: "octet_length(state)" };
        let aggregate = |row: PgRow| {
            Ok(Aggregate {
                originator_id: row.try_get(0)?,
                events: row.try_get(1)?,
                recent_events: row.try_get(2)?,
                recent_bytes: row.try_get(3)?,
            })
        };
        let aggregates = rows(&mut read, &selection.sql(&names, last_id), aggregate).await?;
        Ok(Ranking { order: selection.order, last_id, aggregates })
    }
}

impl PostgresCatalog {
    /// Checks tables and indexes by the extension amcheck, where it is installed.
    pub(super) async fn integrity(&mut self) -> Result<Integrity, Failure> {
        let mut integrity = Integrity::default();
        let schema = sqlx::query_scalar(
            "SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace AS n ON n.oid = extnamespace \
             WHERE extname = 'amcheck'",
        );
        let schema: Option<String> =
            schema.fetch_optional(&mut self.connection).await.map_err(|error| failed(&error))?;
        let Some(schema) = schema else {
            integrity.not_checked =
                Some("tables and indexes: the extension amcheck is not installed".to_owned());
            return Ok(integrity);
        };
        for table in [&self.events, &self.snapshots, &self.tracking] {
            let regclass = table.regclass();
            // Each call is a statement of its own: damage of an index is an error of the statement.
            let indexes = sqlx::query_scalar(AssertSqlSafe(format!(
                "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid \
                 JOIN pg_am AS a ON a.oid = c.relam WHERE amname = 'btree' AND indisvalid AND indrelid = {regclass}"
            )));
            let indexes: Vec<String> =
                indexes.fetch_all(&mut self.connection).await.map_err(|error| failed(&error))?;
            for index in indexes {
                let check = format!("SELECT {schema}.bt_index_check($1::regclass, true)");
                let checked =
                    sqlx::query(AssertSqlSafe(check)).bind(&index).execute(&mut self.connection).await;
                integrity.add(&format!("index {index}"), checked.map(drop))?;
            }
            let check =
                format!("SELECT {schema}.verify_heapam({regclass})::text WHERE {regclass} IS NOT NULL");
            let rows = sqlx::query_scalar(AssertSqlSafe(check)).fetch_all(&mut self.connection).await;
            let rows: Result<Vec<String>, _> = rows;
            if let Ok(rows) = &rows {
                integrity.damage.extend(rows.iter().map(|row| format!("table {}: {row}", table.name)));
            }
            integrity.add(&format!("table {}", table.name), rows.map(drop))?;
        }
        self.is_damaged = !integrity.damage.is_empty();
        Ok(integrity)
    }

    pub(super) async fn gaps(
        &mut self,
        first: i64,
        report: impl FnMut(Gap) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let gap = |row: &PgRow| {
            Ok(Gap { originator_id: row.try_get(0)?, version: row.try_get(1)?, previous: row.try_get(2)? })
        };
        let mut read = begin(&mut self.connection).await?;
        let is_unique = integer(&mut read, &key_columns(&self.events)).await? == 2;
        if self.is_damaged {
            avoid_indexes(&mut read).await?;
        }
        let sql = versions::gaps(&self.events.quoted, "true", first, is_unique && !self.is_damaged);
        each(&mut read, &sql, gap, report).await
    }

    pub(super) async fn tables(&mut self) -> Result<[(String, bool); 3], Failure> {
        let mut read = begin(&mut self.connection).await?;
        let mut found = Vec::new();
        for table in [&self.events, &self.tracking, &self.snapshots] {
            found.push(exists(&mut read, table).await?);
        }
        let table = |table: &Table, index: usize| (table.name.clone(), found[index]);
        Ok([table(&self.events, 0), table(&self.tracking, 1), table(&self.snapshots, 2)])
    }

    pub(super) async fn has_snapshots(&mut self) -> Result<bool, Failure> {
        let mut read = begin(&mut self.connection).await?;
        exists(&mut read, &self.snapshots).await
    }

    pub(super) async fn snapshot_faults(
        &mut self,
        report: impl FnMut(SnapshotFault) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let fault = |row: &PgRow| {
            Ok(SnapshotFault {
                originator_id: row.try_get(0)?,
                version: row.try_get(1)?,
                last: row.try_get(2)?,
            })
        };
        let mut read = begin(&mut self.connection).await?;
        if self.is_damaged {
            avoid_indexes(&mut read).await?;
        }
        let sql = versions::snapshot_faults(&self.events.quoted, &self.snapshots.quoted);
        each(&mut read, &sql, fault, report).await
    }

    pub(super) async fn snapshot_originators(
        &mut self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        // The order of UUIDs is that of their texts.
        let after =
            if after.is_empty() { String::new() } else { format!(" WHERE originator_id > '{after}'") };
        let sql = format!(
            "SELECT DISTINCT originator_id::text FROM {}{after} ORDER BY 1 LIMIT {limit}",
            self.snapshots.quoted
        );
        let mut read = begin(&mut self.connection).await?;
        rows(&mut read, &sql, |row| row.try_get(0)).await
    }
}

impl Integrity {
    /// Adds the outcome of a check: an error of the server is damage, unless the role may not check.
    fn add(&mut self, checked: &str, outcome: Result<(), sqlx::Error>) -> Result<(), Failure> {
        let Err(error) = outcome else { return Ok(()) };
        match error.as_database_error().and_then(<dyn DatabaseError>::code).as_deref() {
            Some("42501") => self.not_checked = Some(format!("{checked}: {}", chain(&error))),
            Some(_) => self.damage.push(format!("{checked}: {}", chain(&error))),
            None => return Err(failed(&error)),
        }
        Ok(())
    }
}

impl Table {
    fn new(schema: &str, name: &str) -> Self {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        Self { name: name.to_owned(), quoted: format!("{}.{}", quote(schema), quote(name)) }
    }

    /// Returns the table as an expression, which is null if there is no such table.
    pub(crate) fn regclass(&self) -> String {
        format!("to_regclass(E'{}')", self.quoted.replace('\\', "\\\\").replace('\'', "''"))
    }
}

impl Tables {
    /// Returns the tables of the application of an environment.
    pub(crate) fn of(environment: &Environment) -> Self {
        let schema = schema(environment);
        let table = |suffix: &str, unnamed: &str| match environment.application_name() {
            "" => Table::new(schema, unnamed),
            application => Table::new(schema, &format!("{}_{suffix}", application.to_lowercase())),
        };
        Self {
            events: table("events", "stored_events"),
            snapshots: table("snapshots", "stored_snapshots"),
            tracking: table("tracking", "notification_tracking"),
            segments: table("tracking_segments", "notification_tracking_segments"),
        }
    }
}

fn schema(environment: &Environment) -> &str {
    environment.get("POSTGRES_SCHEMA").unwrap_or("public")
}

/// Connects to the first host that answers; returns its name and port.
pub(crate) async fn connect(environment: &Environment) -> Result<(PgConnection, String), Failure> {
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

pub(crate) fn failed(error: &sqlx::Error) -> Failure {
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

/// Has the transaction read tables instead of indexes: a damaged one does not have every version.
async fn avoid_indexes(read: &mut Read<'_>) -> Result<(), Failure> {
    let settings = ["indexscan", "indexonlyscan", "bitmapscan"];
    let off = settings.map(|setting| format!("set_config('enable_{setting}', 'off', true)"));
    text(read, &format!("SELECT concat({})", off.join(", "))).await.map(drop)
}

/// Calls `report` for each row of a query, as the rows arrive.
async fn each<T>(
    read: &mut Read<'_>,
    sql: &str,
    parse: impl Fn(&PgRow) -> Result<T, sqlx::Error>,
    mut report: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut **read);
    while let Some(row) = rows.try_next().await.map_err(|error| failed(&error))? {
        report(parse(&row).map_err(|error| failed(&error))?)?;
    }
    Ok(())
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
pub(crate) fn key_columns(table: &Table) -> String {
    format!(
        "SELECT coalesce(max(indnkeyatts), 0)::bigint FROM pg_index WHERE indisprimary AND indrelid = {}",
        table.regclass()
    )
}

async fn last_id(read: &mut Read<'_>, events: &Table) -> Result<i64, Failure> {
    integer(read, &format!("SELECT coalesce(max(notification_id), 0) FROM {}", events.quoted)).await
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

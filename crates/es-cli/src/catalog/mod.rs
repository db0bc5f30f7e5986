//! Facts about the tables of a database that no recorder returns, by SQL: names, counts and sizes.
//!
//! Each method reads in one transaction, and so one consistent state.

mod postgres;
mod sqlite;

use es_factory::Environment;
use serde::Serialize;

use crate::failure::Failure;

use self::{postgres::PostgresCatalog, sqlite::SqliteCatalog};

/// The tables of one database, of either backend.
pub(crate) enum Catalog {
    Sqlite(SqliteCatalog),
    Postgres(PostgresCatalog),
}

/// The facts about a database.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    pub(crate) backend: &'static str,
    /// The version of the database's software.
    pub(crate) version: String,
    /// The file, or the host, the database and the schema.
    pub(crate) location: String,
    /// The size of the file, or of the tables with their indexes.
    pub(crate) bytes: i64,
    /// The setting `journal_mode` of SQLite.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) journal_mode: Option<String>,
    pub(crate) events: EventCounts,
    /// The number of snapshots, if there is a table of them.
    pub(crate) snapshots: Option<i64>,
    /// The layout of the tracking table, if there is one.
    pub(crate) tracking_layout: Option<Layout>,
    pub(crate) trackers: Vec<Tracker>,
}

/// The extent of the log.
#[derive(Debug, Default, Serialize)]
pub(crate) struct EventCounts {
    pub(crate) table: String,
    pub(crate) count: i64,
    pub(crate) aggregates: i64,
    pub(crate) topics: i64,
    pub(crate) first_id: Option<i64>,
    pub(crate) last_id: Option<i64>,
}

/// The layout of the tracking table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// One row for each application: version 9.5 of the Python library, and this library.
    RowPerApplication,
    /// One row for each tracking record: version 9.1.
    RowPerRecord,
}

/// The position of a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tracker {
    pub(crate) name: String,
    pub(crate) position: i64,
}

/// The events of one topic.
#[derive(Debug, Serialize)]
pub(crate) struct TopicCount {
    pub(crate) topic: String,
    pub(crate) count: i64,
    pub(crate) first_id: i64,
    pub(crate) last_id: i64,
    /// The total size of the stored states.
    pub(crate) bytes: i64,
}

impl Layout {
    fn of_key_columns(columns: i64) -> Self {
        if columns > 1 { Self::RowPerRecord } else { Self::RowPerApplication }
    }
}

impl Catalog {
    /// Opens the catalog of the database that a factory's environment selects.
    pub(crate) async fn open(environment: &Environment) -> Result<Self, Failure> {
        match environment.get("SQLITE_DBNAME") {
            Some(name) if !is_postgres(environment) => SqliteCatalog::open(name).map(Self::Sqlite),
            _ => PostgresCatalog::open(environment).await.map(Self::Postgres),
        }
    }

    pub(crate) async fn overview(&mut self) -> Result<Overview, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.overview(),
            Self::Postgres(catalog) => catalog.overview().await,
        }
    }

    /// Returns the topics of the log, ordered by name.
    pub(crate) async fn topics(&mut self) -> Result<Vec<TopicCount>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.topics(),
            Self::Postgres(catalog) => catalog.topics().await,
        }
    }

    /// Returns the positions of all consumers, ordered by name.
    pub(crate) async fn trackers(&mut self) -> Result<Vec<Tracker>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.trackers(),
            Self::Postgres(catalog) => catalog.trackers().await,
        }
    }
}

/// Returns whether the module of an environment is PostgreSQL's; it may have variables of both.
fn is_postgres(environment: &Environment) -> bool {
    let module = environment.get("PERSISTENCE_MODULE").or_else(|| environment.get("INFRASTRUCTURE_FACTORY"));
    module.is_some_and(|module| module.contains("postgres"))
}

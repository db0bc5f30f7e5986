//! Facts about the tables of a database that no recorder returns, by SQL: names, counts and sizes.
//!
//! Each method reads in one transaction, and so one consistent state.

mod facts;
mod postgres;
mod sqlite;

use es_factory::Environment;

pub(crate) use self::facts::{Layout, Overview, TopicCount, Tracker};
use self::{postgres::PostgresCatalog, sqlite::SqliteCatalog};
use crate::failure::Failure;

/// The tables of one database, of either backend.
pub(crate) enum Catalog {
    Sqlite(SqliteCatalog),
    Postgres(PostgresCatalog),
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

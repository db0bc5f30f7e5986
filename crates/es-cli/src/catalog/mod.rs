//! Facts about the tables of a database that no recorder returns, by SQL: names, counts and sizes.
//!
//! Each method reads in one transaction, and so one consistent state.

mod facts;
pub(crate) mod postgres;
mod ranking;
pub(crate) mod sqlite;
mod versions;

use es_factory::Environment;

#[cfg(feature = "ui")]
pub(crate) use self::facts::IdSelection;
pub(crate) use self::{
    facts::{Gap, Integrity, Layout, Overview, SnapshotFault, TopicCount, Tracker},
    ranking::{Aggregate, Order, Ranking, Selection},
};
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

    /// Returns the topics of the log from a notification id on, ordered by name.
    pub(crate) async fn topics(&mut self, first: i64) -> Result<Vec<TopicCount>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.topics(first),
            Self::Postgres(catalog) => catalog.topics(first).await,
        }
    }

    /// Returns the notification ids of a selection.
    #[cfg(feature = "ui")]
    pub(crate) async fn ids(&mut self, selection: &IdSelection) -> Result<Vec<i64>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.ids(selection),
            Self::Postgres(catalog) => catalog.ids(selection).await,
        }
    }

    /// Returns the positions of all consumers, ordered by name.
    pub(crate) async fn trackers(&mut self) -> Result<Vec<Tracker>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.trackers(),
            Self::Postgres(catalog) => catalog.trackers().await,
        }
    }

    /// Returns the names of the consumers that have segments.
    pub(crate) async fn partitioned(&mut self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.partitioned(),
            Self::Postgres(catalog) => catalog.partitioned().await,
        }
    }

    /// Returns the file, or the host, the database and the schema.
    pub(crate) fn location(&self) -> &str {
        match self {
            Self::Sqlite(catalog) => catalog.location(),
            Self::Postgres(catalog) => catalog.location(),
        }
    }

    /// Returns the last id of the log; 0 if it is empty.
    pub(crate) async fn last_id(&mut self) -> Result<i64, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.last_id(),
            Self::Postgres(catalog) => catalog.last_id().await,
        }
    }

    /// Returns the first aggregates in an order.
    pub(crate) async fn ranking(&mut self, selection: Selection) -> Result<Ranking, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.ranking(selection),
            Self::Postgres(catalog) => catalog.ranking(selection).await,
        }
    }

    /// Checks the database by its own means.
    pub(crate) async fn integrity(&mut self) -> Result<Integrity, Failure> {
        match self {
            Self::Sqlite(catalog) => Ok(catalog.integrity()),
            Self::Postgres(catalog) => catalog.integrity().await,
        }
    }

    /// Calls `report` for each version that does not follow the one before it, or is first and not `first`.
    pub(crate) async fn gaps(
        &mut self,
        first: i64,
        report: impl FnMut(Gap) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.gaps(first, report),
            Self::Postgres(catalog) => catalog.gaps(first, report).await,
        }
    }

    /// Returns whether there is a table of snapshots.
    pub(crate) async fn has_snapshots(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.has_snapshots(),
            Self::Postgres(catalog) => catalog.has_snapshots().await,
        }
    }

    /// Calls `report` for each snapshot of a version that its aggregate does not have.
    pub(crate) async fn snapshot_faults(
        &mut self,
        report: impl FnMut(SnapshotFault) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.snapshot_faults(report),
            Self::Postgres(catalog) => catalog.snapshot_faults(report).await,
        }
    }

    /// Returns the next aggregates with snapshots after `after`, in the order of their ids as text.
    pub(crate) async fn snapshot_originators(
        &mut self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<String>, Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.snapshot_originators(after, limit),
            Self::Postgres(catalog) => catalog.snapshot_originators(after, limit).await,
        }
    }

    /// Returns whether the tables of events, positions and snapshots exist, by their names.
    pub(crate) async fn tables(&mut self) -> Result<[(String, bool); 3], Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.tables(),
            Self::Postgres(catalog) => catalog.tables().await,
        }
    }

    /// Returns the reasons why the library cannot work with the tables, in their order, where its recorders
    /// do not check it.
    pub(crate) fn problems(&mut self) -> Result<[Option<String>; 3], Failure> {
        match self {
            Self::Sqlite(catalog) => catalog.problems(),
            Self::Postgres(_) => Ok([None, None, None]),
        }
    }
}

/// Returns whether the module of an environment is PostgreSQL's; it may have variables of both.
pub(crate) fn is_postgres(environment: &Environment) -> bool {
    let module = environment.get("PERSISTENCE_MODULE").or_else(|| environment.get("INFRASTRUCTURE_FACTORY"));
    module.is_some_and(|module| module.contains("postgres"))
}

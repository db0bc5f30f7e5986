//! Writes events with the ids of another log, by SQL: recorders allocate ids themselves.
//!
//! The position is recorded in the same transaction, and only if the recorded one is the expected one.

mod moved;
mod postgres;
mod sqlite;

use es_core::Notification;
use es_factory::Environment;

use self::{postgres::PostgresKeeper, sqlite::SqliteKeeper};
use crate::{catalog::is_postgres, failure::Failure};

/// A writer of events with ids.
pub(crate) enum IdKeeper {
    Sqlite(SqliteKeeper),
    Postgres(PostgresKeeper),
}

impl IdKeeper {
    /// Opens the database of an environment, whose tables must exist.
    pub(crate) async fn open(environment: &Environment) -> Result<Self, Failure> {
        match environment.get("SQLITE_DBNAME") {
            Some(name) if !is_postgres(environment) => SqliteKeeper::open(name).map(Self::Sqlite),
            _ => PostgresKeeper::open(environment).await.map(Self::Postgres),
        }
    }

    /// Records notifications with their ids, and the id of the last one as the position of `consumer`, in one
    /// transaction.
    ///
    /// # Errors
    /// If the recorded position is not `expected` (0: none), or an id or a version is taken. Nothing is
    /// recorded then.
    pub(crate) async fn append(
        &mut self,
        notifications: &[Notification],
        consumer: &str,
        expected: i64,
    ) -> Result<(), Failure> {
        match self {
            Self::Sqlite(keeper) => keeper.append(notifications, consumer, expected),
            Self::Postgres(keeper) => keeper.append(notifications, consumer, expected).await,
        }
    }
}

//! Writes by SQL that no recorder makes: events with the ids of another log, and positions that move back.
//!
//! Each is one transaction, and made only if the recorded position is the expected one.

mod moved;
mod postgres;
mod sqlite;

use es_core::Notification;
use es_factory::Environment;

use self::{postgres::PostgresWriter, sqlite::SqliteWriter};
use crate::{catalog::is_postgres, failure::Failure};

/// A writer to one database.
pub(crate) enum SqlWriter {
    Sqlite(SqliteWriter),
    Postgres(PostgresWriter),
}

impl SqlWriter {
    /// Opens the database of an environment, whose tables must exist.
    pub(crate) async fn open(environment: &Environment) -> Result<Self, Failure> {
        match environment.get("SQLITE_DBNAME") {
            Some(name) if !is_postgres(environment) => SqliteWriter::open(name).map(Self::Sqlite),
            _ => PostgresWriter::open(environment).await.map(Self::Postgres),
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
            Self::Sqlite(writer) => writer.append(notifications, consumer, expected),
            Self::Postgres(writer) => writer.append(notifications, consumer, expected).await,
        }
    }

    /// Verifies that ids can be given to events.
    pub(crate) async fn verify_ids(&mut self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(writer) => writer.verify_ids().await,
        }
    }

    /// Replaces the position of a consumer; `None` is no position.
    ///
    /// # Errors
    /// If the recorded position is not `expected`. Nothing is written then.
    pub(crate) async fn set_position(
        &mut self,
        consumer: &str,
        expected: Option<i64>,
        position: Option<i64>,
    ) -> Result<(), Failure> {
        match self {
            Self::Sqlite(writer) => writer.set_position(consumer, expected, position),
            Self::Postgres(writer) => writer.set_position(consumer, expected, position).await,
        }
    }
}

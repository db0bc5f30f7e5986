//! SQL that runs on SQLite and on PostgreSQL: statements, projections made of them, and queries.

mod consumer;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod error;
#[cfg(feature = "postgres")]
mod postgres;
mod projection;
mod row;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod value;

pub use consumer::BoxConsumer;
#[cfg(feature = "postgres")]
pub(crate) use postgres::{PostgresStatements, fetch};
pub use projection::{DynSqlProjection, SqlProjection, SqlProjector};
pub(crate) use projection::{Statements, Typed};
pub use row::SqlRow;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::{SqliteStatements, select};
pub(crate) use statement::NoRow;
pub use statement::Sql;
pub use value::SqlValue;

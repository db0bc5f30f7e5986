//! The program's own tables, written in the transaction that records a position.

pub(crate) mod job;
mod projector;

pub use projector::{SqliteProjection, SqliteProjector};

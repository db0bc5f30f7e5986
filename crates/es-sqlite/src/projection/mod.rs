//! Projections: the program's own tables, written in the transaction that records a position.

mod job;
mod projector;

pub use projector::{SqliteProjection, SqliteProjector};

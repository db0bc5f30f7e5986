//! Projections: tables of the program's own in the commit that records a position.

mod projector;

pub use projector::{PostgresProjection, PostgresProjector};

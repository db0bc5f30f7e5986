//! Versions of a projection under one name: built beside each other, switched in one commit.

mod projection;
mod projections;
mod projector;
mod registration;
mod statements;
mod version;

pub use projection::{ProjectionContext, VersionedProjection};
pub use projections::Projections;
pub use projector::VersionedProjector;
pub use version::{ProjectionVersion, VersionState};

//! Tables: names, rows, catalog state, and creation.

mod create;
mod inspect;
mod name;
pub(crate) mod rows;

pub(crate) use create::{create, prepare};
pub(crate) use inspect::{CatalogState, EventsTable, Layout, TableSpec, TrackingTable};
pub(crate) use name::TableName;

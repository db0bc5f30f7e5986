//! Recorders on PostgreSQL: the same tables as the Python library's.

mod append;
mod connect;
mod datastore;
mod error;
mod fence;
mod hooks;
mod options;
mod outcome;
mod reader;
mod recorder;
mod rows;
mod schema;
mod statements;
mod store;
mod transaction;
mod writer;

pub use datastore::PostgresDatastore;
pub use hooks::{HookFuture, HookPoint, Hooks};
pub use options::{Ordering, PostgresOptions};
pub use recorder::{
    PostgresAggregateRecorder, PostgresApplicationRecorder, PostgresProcessRecorder,
    PostgresTrackingRecorder,
};

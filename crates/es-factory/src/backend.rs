//! The interface between the factory and a datastore.

use std::{fmt::Debug, sync::Arc};

use es_core::{
    BoxFuture, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder, DynTrackingRecorder,
};

/// A source of recorders on one datastore, as an environment describes it.
///
/// Implement it, and [register](crate::Registry::register_backend) a function that constructs it, to
/// make a datastore of your own available by name. Constructing does not connect: the methods do.
/// Recorders of one backend share its datastore.
pub trait Backend: Debug + Send + Sync + 'static {
    /// A recorder of the events of aggregates for a purpose, such as `snapshots`, in a table of
    /// their own.
    fn aggregate_recorder<'a>(&'a self, purpose: &'a str) -> BoxFuture<'a, Arc<dyn DynAggregateRecorder>>;

    /// A recorder of the application's events.
    fn application_recorder(&self) -> BoxFuture<'_, Arc<dyn DynApplicationRecorder>>;

    /// A recorder of tracking positions.
    fn tracking_recorder(&self) -> BoxFuture<'_, Arc<dyn DynTrackingRecorder>>;

    /// A recorder of the application's events and its tracking positions.
    fn process_recorder(&self) -> BoxFuture<'_, Arc<dyn DynProcessRecorder>>;

    /// Closes the datastore, and with it every recorder of this backend.
    fn close(&self) -> BoxFuture<'_, ()>;
}

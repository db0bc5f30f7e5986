//! Recorders that share their events.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use es_core::PersistenceError;

use crate::{
    PopoAggregateRecorder, PopoApplicationRecorder, PopoProcessRecorder, PopoTrackingRecorder,
    table::{Table, closed},
};

/// A datastore in memory, shared by the recorders made from it.
///
/// Cloning returns another handle on the same datastore.
///
/// ```
/// use es_core::Recorder;
/// use es_popo::PopoDatastore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), es_core::PersistenceError> {
/// let datastore = PopoDatastore::new();
/// let events = datastore.application_recorder()?;
/// let snapshots = datastore.aggregate_recorder("snapshots")?;
/// events.close().await?; // `snapshots` goes on
/// # let _ = snapshots;
/// datastore.close()
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PopoDatastore(Arc<Tables>);

#[derive(Debug)]
struct Tables {
    /// The events of the application, and the tracking positions.
    application: Arc<Table>,
    purposes: Mutex<HashMap<String, Arc<Table>>>,
}

impl PopoDatastore {
    /// An empty datastore.
    pub fn new() -> Self {
        Self(Arc::new(Tables { application: Arc::new(Table::new()), purposes: Mutex::default() }))
    }

    /// Returns a recorder of the events of aggregates for a purpose, such as `snapshots`, apart from other
    /// events.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) if the datastore is closed.
    pub fn aggregate_recorder(&self, purpose: &str) -> Result<PopoAggregateRecorder, PersistenceError> {
        self.check_open()?;
        // No code panics while the map is locked.
        let mut purposes = self.0.purposes.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Table::new());
        Ok(PopoAggregateRecorder::of(purposes.entry(purpose.to_owned()).or_insert_with(new)))
    }

    /// Returns a recorder of the application's events.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) if the datastore is closed.
    pub fn application_recorder(&self) -> Result<PopoApplicationRecorder, PersistenceError> {
        self.check_open()?;
        Ok(PopoApplicationRecorder::of(&self.0.application))
    }

    /// Returns a recorder of tracking positions.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) if the datastore is closed.
    pub fn tracking_recorder(&self) -> Result<PopoTrackingRecorder, PersistenceError> {
        self.check_open()?;
        Ok(PopoTrackingRecorder::of(&self.0.application))
    }

    /// Returns a recorder of the application's events and its tracking positions.
    ///
    /// # Errors
    /// [`Interface`](es_core::ErrorKind::Interface) if the datastore is closed.
    pub fn process_recorder(&self) -> Result<PopoProcessRecorder, PersistenceError> {
        self.check_open()?;
        Ok(PopoProcessRecorder::of(&self.0.application))
    }

    /// Closes all recorders of the datastore, and drops what they have recorded. Closing again succeeds.
    ///
    /// # Errors
    /// [`Internal`](es_core::ErrorKind::Internal) if a panic has interrupted a recorder.
    pub fn close(&self) -> Result<(), PersistenceError> {
        self.0.application.close()?;
        let purposes = self.0.purposes.lock().unwrap_or_else(PoisonError::into_inner);
        purposes.values().try_for_each(|table| table.close())
    }

    fn check_open(&self) -> Result<(), PersistenceError> {
        if self.0.application.commits.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

impl Default for PopoDatastore {
    fn default() -> Self {
        Self::new()
    }
}

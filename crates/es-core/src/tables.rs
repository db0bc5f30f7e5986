//! The tables of a recorder.

/// The tables of a recorder, where they are not those that its datastore has by default.
///
/// ```
/// use es_core::RecorderTables;
///
/// let tables = RecorderTables::new().events("ledger").create(false);
/// assert_eq!(tables.events_name(), Some("ledger"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecorderTables {
    events: Option<String>,
    tracking: Option<String>,
    create: Option<bool>,
}

impl RecorderTables {
    /// The tables that the datastore has by default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the name of the table of events, or of snapshots.
    #[must_use]
    pub fn events(mut self, name: impl Into<String>) -> Self {
        self.events = Some(name.into());
        self
    }

    /// Sets the name of the table of tracking records. SQLite has one such table, whose name is fixed.
    #[must_use]
    pub fn tracking(mut self, name: impl Into<String>) -> Self {
        self.tracking = Some(name.into());
        self
    }

    /// Sets whether missing tables are created, whatever the options of the datastore say.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Returns the name of the table of events, if it is set.
    pub fn events_name(&self) -> Option<&str> {
        self.events.as_deref()
    }

    /// Returns the name of the table of tracking records, if it is set.
    pub fn tracking_name(&self) -> Option<&str> {
        self.tracking.as_deref()
    }

    /// Returns whether missing tables are created, if it is set.
    pub fn is_created(&self) -> Option<bool> {
        self.create
    }
}

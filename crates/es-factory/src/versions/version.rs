//! A version of a projection, as it is recorded.

use std::fmt;

use es_core::PersistenceError;

/// The state of a version of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VersionState {
    /// It repeats what the active version has processed, without side effects. Nothing reads it yet.
    Building,
    /// Its tables are the ones that are read, and it has the side effects.
    Active,
    /// Another version has replaced it. It commits nothing, until it is switched back to or built again.
    Retired,
    /// Its tables are deleted. Its number is not used again.
    Dropped,
}

impl VersionState {
    /// Returns the name of the state, as it is recorded.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Dropped => "dropped",
        }
    }

    fn parse(name: &str) -> Result<Self, PersistenceError> {
        [Self::Building, Self::Active, Self::Retired, Self::Dropped]
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| PersistenceError::data(format!("the state {name:?} of a projection is unknown")))
    }
}

impl fmt::Display for VersionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A version of a projection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProjectionVersion {
    /// The name of the projection.
    pub name: String,
    /// The number of the version.
    pub version: u32,
    /// The state.
    pub state: VersionState,
    /// True if its processors commit nothing until it is resumed.
    pub is_paused: bool,
    /// The name of its consumer, the key of its position: the projection's name for version 1, `NAME@2` for
    /// version 2.
    pub consumer_name: String,
    /// Its position; 0 before the first notification.
    pub position: i64,
    /// The position up to which the side effects are those of earlier versions.
    pub live_from: i64,
    /// The tables, by the names under which they are read.
    pub tables: Vec<String>,
    /// The version that it has replaced.
    pub replaces: Option<u32>,
    /// Counts the changes of the projection's versions. A commit that expects another count is refused.
    pub(crate) epoch: i64,
    /// The application of the projection.
    pub(crate) origin: String,
}

/// The columns of a version.
pub(super) type Columns =
    (String, i64, String, i64, i64, i64, String, String, Option<i64>, String, Option<i64>);

impl ProjectionVersion {
    pub(super) fn from_columns(columns: Columns) -> Result<Self, PersistenceError> {
        let (
            name,
            version,
            state,
            is_paused,
            epoch,
            live_from,
            consumer_name,
            tables,
            replaces,
            origin,
            position,
        ) = columns;
        let number = |version: i64| {
            u32::try_from(version).map_err(|error| {
                let message =
                    format!("the version {version} of projection {name:?} is not a number of a version");
                PersistenceError::data(message).with_source(error)
            })
        };
        Ok(Self {
            version: number(version)?,
            state: VersionState::parse(&state)?,
            is_paused: is_paused != 0,
            consumer_name,
            position: position.unwrap_or(0),
            live_from,
            tables: tables.split_whitespace().map(str::to_owned).collect(),
            replaces: replaces.map(number).transpose()?,
            epoch,
            origin,
            name,
        })
    }

    /// Returns the position up to which side effects were made, by this version or by earlier ones.
    pub(super) fn effects_position(&self) -> i64 {
        self.position.max(self.live_from)
    }

    /// Returns the version as an error names it.
    pub(super) fn title(&self) -> String {
        format!("version {} of projection {:?}", self.version, self.name)
    }
}

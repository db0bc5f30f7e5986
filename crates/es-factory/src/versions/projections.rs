//! The lifecycle of versioned projections.

use std::{
    error::Error,
    iter::successors,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{PersistenceError, Signal};

use super::{
    statements::{self, version_table},
    version::{Columns, ProjectionVersion, VersionState},
};
use crate::{Backend, Sql, sql::NoRow};

/// The number of times that a change is tried again, if the positions or the versions have changed meanwhile,
/// or a reader holds a view for long.
const RETRIES: usize = 20;

/// The pause before a change is tried again, and between two looks at positions.
const PAUSE: Duration = Duration::from_millis(50);

/// The versions of the projections of a database, and the changes of them.
///
/// Returned by [`InfrastructureFactory::projections`](crate::InfrastructureFactory::projections). Each change
/// is one transaction. A processor of a version commits nothing that belongs to the state before the change:
/// its next commit finds out, in its transaction, that the version was paused or replaced.
///
/// ```
/// # use es_core::PersistenceError;
/// # use es_factory::InfrastructureFactory;
/// # use std::time::Duration;
/// # async fn example(factory: InfrastructureFactory) -> Result<(), PersistenceError> {
/// let projections = factory.projections();
/// // A processor of version 2 runs, beside that of version 1.
/// projections.catch_up_and_switch("sales", 2, Duration::from_secs(30)).await?;
/// // Readers now see version 2. If it is wrong:
/// projections.rollback("sales").await?;
/// projections.drop("sales", 2).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Projections {
    pub(super) backend: Arc<dyn Backend>,
    is_dry_run: bool,
}

impl Projections {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, is_dry_run: false }
    }

    /// Verifies each change as far as that is possible without making it, and makes none.
    #[must_use]
    pub fn dry_run(mut self) -> Self {
        self.is_dry_run = true;
        self
    }

    /// Returns all versions of the application's projections, by name and number.
    ///
    /// # Errors
    /// If the database cannot be read; [`NotSupported`](es_core::ErrorKind::NotSupported) if it has no SQL.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn all(&self) -> Result<Vec<ProjectionVersion>, PersistenceError> {
        let own = statements::origin(&self.backend.tracking_table()?);
        if self.kind_of_relation(&own).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut versions = self.of_database().await?;
        versions.retain(|version| version.origin == own);
        Ok(versions)
    }

    /// Returns the versions of the projections of all applications of the database.
    pub(super) async fn of_database(&self) -> Result<Vec<ProjectionVersion>, PersistenceError> {
        if self.kind_of_relation(statements::TABLE).await?.is_none() {
            return Ok(Vec::new());
        }
        self.select(None).await
    }

    /// Returns the versions of a projection, by number, also those that were dropped.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if there is no projection of this name; as
    /// [`all`](Self::all).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn versions(&self, name: &str) -> Result<Vec<ProjectionVersion>, PersistenceError> {
        let mut versions = self.all().await?;
        versions.retain(|version| version.name == name);
        if versions.is_empty() {
            return Err(PersistenceError::programming(format!("there is no projection {name:?}")));
        }
        Ok(versions)
    }

    /// Returns the version of a projection that is read.
    ///
    /// Its [consumer name](ProjectionVersion::consumer_name) is the one to
    /// [wait](es_core::TrackingRecorderExt::wait) for.
    ///
    /// # Errors
    /// As [`versions`](Self::versions).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn active(&self, name: &str) -> Result<ProjectionVersion, PersistenceError> {
        Ok(active(&self.versions(name).await?)?.clone())
    }

    /// Makes `version` the one that is read and has side effects, in one commit: a version that was built, or
    /// one that was replaced before. Does nothing if it is active.
    ///
    /// Readers see the tables of the one version or of the other, also if they read several tables in one
    /// transaction. The version that is replaced commits nothing after its position, from which
    /// the side effects of the new one begin.
    ///
    /// A version that is built must be at most `max_lag` notification ids behind the active one: readers
    /// would see it go back that far. With 0, a new version may only be switched to at a moment at which both
    /// have the same position; [`catch_up_and_switch`](Self::catch_up_and_switch) arranges that.
    ///
    /// On PostgreSQL, the change waits for transactions that have read the views; after some attempts it
    /// fails with a [transient](PersistenceError::is_transient) error, and nothing is changed. Privileges on
    /// the views are kept; a view of your own on one of them must have the same columns in both versions.
    ///
    /// # Errors
    /// [`Operational`](es_core::ErrorKind::Operational) and transient if the version is further behind;
    /// [`Programming`](es_core::ErrorKind::Programming) if there is no such version, or it was dropped; any
    /// error of the database.
    ///
    /// # Cancel safety
    /// Cancel safe: either the version is active or it is not.
    pub async fn switch(&self, name: &str, version: u32, max_lag: i64) -> Result<(), PersistenceError> {
        self.change(name, |versions, tracking| {
            let (target, active) = (find(versions, name, version)?, active(versions)?);
            let replaces = Some(active.version);
            match target.state {
                VersionState::Active => Ok(Vec::new()),
                VersionState::Retired => Ok(switch(tracking, target, active, replaces, None)),
                VersionState::Building => {
                    let lag = active.position.saturating_sub(target.position);
                    if lag > max_lag {
                        return Err(behind(target, active, lag));
                    }
                    Ok(switch(tracking, target, active, replaces, Some(max_lag)))
                }
                VersionState::Dropped => Err(unusable(target)),
            }
        })
        .await
    }

    /// Pauses the active version, waits until the processor of `version` has reached its position, and
    /// [switches](Self::switch) to it. If that fails, the active version is resumed.
    ///
    /// # Errors
    /// [`TimedOut`](es_core::ErrorKind::TimedOut) if the version does not catch up within `timeout`, for
    /// example because no processor of it runs; [`Programming`](es_core::ErrorKind::Programming) if it is
    /// paused; as [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped, the active version may be left paused, until it is
    /// [resumed](Self::resume) or replaced.
    pub async fn catch_up_and_switch(
        &self,
        name: &str,
        version: u32,
        timeout: Duration,
    ) -> Result<(), PersistenceError> {
        let versions = self.versions(name).await?;
        let (target, active) = (find(&versions, name, version)?, active(&versions)?);
        if target.state != VersionState::Building {
            return self.switch(name, version, 0).await;
        }
        if target.is_paused && target.position < active.position {
            let message = format!("{} is paused: resume it, so that it catches up", target.title());
            return Err(PersistenceError::programming(message));
        }
        let was_paused = active.is_paused;
        self.pause(name, active.version).await?;
        let switched = match self.wait_until_caught_up(name, version, timeout).await {
            Ok(()) => self.switch(name, version, 0).await,
            Err(error) => Err(error),
        };
        match switched {
            Err(error) if !was_paused => Err(match self.resume(name, active.version).await {
                Ok(()) => error,
                Err(_) => error.with_context(format_args!("{} could not be resumed", active.title())),
            }),
            switched => switched,
        }
    }

    async fn wait_until_caught_up(
        &self,
        name: &str,
        version: u32,
        timeout: Duration,
    ) -> Result<(), PersistenceError> {
        let began = Instant::now();
        loop {
            let versions = self.versions(name).await?;
            let (target, active) = (find(&versions, name, version)?, active(&versions)?);
            if target.position >= active.position {
                return Ok(());
            }
            if began.elapsed() >= timeout {
                let lag = active.position.saturating_sub(target.position);
                let message = format!("{} did not catch up within {timeout:?}", target.title());
                return Err(PersistenceError::new(es_core::ErrorKind::TimedOut, message)
                    .with_source(behind(target, active, lag))
                    .transient());
            }
            pause().await;
        }
    }

    /// Switches back to the version that the active one has replaced, in one commit. It continues at its
    /// position; side effects of the notifications that the other version has processed are not repeated.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the active version has replaced none, or that one
    /// was dropped or is being built again; as [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// As [`switch`](Self::switch).
    pub async fn rollback(&self, name: &str) -> Result<(), PersistenceError> {
        // The one that is replaced now, so that a repetition after an unknown outcome does not go back twice.
        let replaced = self.active(name).await?;
        let Some(previous) = replaced.replaces else {
            let message = format!("{} has replaced no other version", replaced.title());
            return Err(PersistenceError::programming(message));
        };
        self.change(name, |versions, tracking| {
            let (target, active) = (find(versions, name, previous)?, active(versions)?);
            if active.version == previous {
                return Ok(Vec::new());
            }
            match target.state {
                VersionState::Retired => Ok(switch(tracking, target, active, target.replaces, None)),
                _ => Err(unusable(target)),
            }
        })
        .await
    }

    /// Stops the commits of a version, until it is [resumed](Self::resume). Its processors need not be
    /// stopped: they wait.
    ///
    /// # Errors
    /// As [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn pause(&self, name: &str, version: u32) -> Result<(), PersistenceError> {
        self.set_paused(name, version, true).await
    }

    /// Lets a version commit again. Processors that wait find out within some seconds.
    ///
    /// # Errors
    /// As [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn resume(&self, name: &str, version: u32) -> Result<(), PersistenceError> {
        self.set_paused(name, version, false).await
    }

    async fn set_paused(&self, name: &str, version: u32, is_paused: bool) -> Result<(), PersistenceError> {
        self.change(name, |versions, _| {
            let target = find(versions, name, version)?;
            if target.state == VersionState::Dropped {
                return Err(unusable(target));
            }
            if target.is_paused == is_paused {
                return Ok(Vec::new());
            }
            let mut change = statements::begin_change(target);
            change.push(statements::set_paused(target, is_paused));
            Ok(change)
        })
        .await
    }

    /// Deletes the rows and the position of a version, which then processes all notifications again: without
    /// side effects for those that were processed. Readers see the rows of an active version grow again. One
    /// that was replaced is built again, as by [`rebuild`](Self::rebuild).
    ///
    /// A processor of the version that is running stops with an error of kind
    /// [`RolledBack`](es_core::ErrorKind::RolledBack) at its next commit: start it again.
    ///
    /// # Errors
    /// As [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn reset(&self, name: &str, version: u32) -> Result<(), PersistenceError> {
        self.change(name, |versions, tracking| empty(find(versions, name, version)?, tracking)).await
    }

    /// Builds a version that is not read again from the first notification: [resets](Self::reset) it, so that
    /// it catches up beside the active one, and can be [switched](Self::switch) to. To rebuild the active
    /// version behind its readers, register another one.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the version is active; as
    /// [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn rebuild(&self, name: &str, version: u32) -> Result<(), PersistenceError> {
        self.change(name, |versions, tracking| {
            let target = find(versions, name, version)?;
            match target.state {
                VersionState::Active => Err(PersistenceError::programming(format!(
                    "{} is active, and readers would see its rows grow again: register another version, or \
                     reset this one",
                    target.title()
                ))),
                _ => empty(target, tracking),
            }
        })
        .await
    }

    /// Drops the tables and the position of a version. Its number is not used again. Does nothing if it is
    /// dropped. The active version can be dropped when it is the last one, with the views.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the version is active and others exist; as
    /// [`switch`](Self::switch).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn drop(&self, name: &str, version: u32) -> Result<(), PersistenceError> {
        self.change(name, |versions, tracking| {
            let target = find(versions, name, version)?;
            let is_left =
                |other: &&ProjectionVersion| other.version != version && other.state != VersionState::Dropped;
            let is_active = target.state == VersionState::Active;
            if let Some(other) = versions.iter().find(is_left).filter(|_| is_active) {
                let message = format!("{} is active, and version {} exists", target.title(), other.version);
                return Err(PersistenceError::programming(message));
            }
            if target.state == VersionState::Dropped {
                return Ok(Vec::new());
            }
            let mut change = statements::begin_change(target);
            if is_active {
                change.push(statements::require_last(target));
                change.push(statements::keep_effects_position(tracking, target));
                change.extend(target.tables.iter().map(|table| statements::drop_view(table)));
            }
            change.push(statements::delete_position(tracking, target));
            let tables = target.tables.iter().map(|table| version_table(table, version));
            change.extend(tables.map(|table| Sql::new(format!("DROP TABLE IF EXISTS {table}"))));
            change.push(statements::set_state(target, VersionState::Dropped));
            Ok(change)
        })
        .await
    }

    /// Makes a change of a projection: reads its versions, and executes the statements that `plan` returns
    /// for them.
    async fn change(
        &self,
        name: &str,
        plan: impl Fn(&[ProjectionVersion], &str) -> Result<Vec<Sql>, PersistenceError>,
    ) -> Result<(), PersistenceError> {
        let tracking = self.backend.tracking_table()?;
        let mut retries = 0;
        loop {
            let change = plan(&self.versions(name).await?, &tracking)?;
            if self.try_execute(name, change, &mut retries).await? {
                return Ok(());
            }
        }
    }

    /// Executes the statements of a change, which fail if the versions have changed since they were read.
    /// Returns false, after a pause, if the change is to be planned again.
    pub(super) async fn try_execute(
        &self,
        name: &str,
        change: Vec<Sql>,
        retries: &mut usize,
    ) -> Result<bool, PersistenceError> {
        if change.is_empty() || self.is_dry_run {
            return Ok(true);
        }
        match self.backend.execute(change).await {
            Err(error) if *retries < RETRIES && may_succeed(&error) => *retries += 1,
            Err(error) => return Err(error.with_context(format_args!("changing projection {name:?}"))),
            Ok(()) => return Ok(true),
        }
        pause().await;
        Ok(false)
    }

    pub(super) async fn kind_of_relation(&self, name: &str) -> Result<Option<String>, PersistenceError> {
        let kinds = self.backend.query(statements::kind_of_relation(name)).await?;
        kinds.into_iter().next().map(crate::SqlRow::deserialize).transpose()
    }

    /// Reads the versions of one projection, or of all.
    pub(super) async fn select(
        &self,
        name: Option<&str>,
    ) -> Result<Vec<ProjectionVersion>, PersistenceError> {
        // The table of positions exists if a recorder was made.
        let tracking = self.backend.tracking_table()?;
        let rows = self.backend.query(statements::select(&tracking, name)).await?;
        rows.into_iter().map(|row| ProjectionVersion::from_columns(row.deserialize::<Columns>()?)).collect()
    }
}

/// Returns the statements that make `target` active, at most `max_lag` behind `active` if that is given.
fn switch(
    tracking: &str,
    target: &ProjectionVersion,
    active: &ProjectionVersion,
    replaces: Option<u32>,
    max_lag: Option<i64>,
) -> Vec<Sql> {
    let mut change = statements::begin_change(target);
    change.extend(max_lag.map(|max_lag| statements::require_lag(tracking, target, active, max_lag)));
    change.extend(statements::activate(tracking, target, active, replaces));
    let is_gone = |table: &&String| !target.tables.contains(table);
    change.extend(active.tables.iter().filter(is_gone).map(|table| statements::drop_view(table)));
    let views = target.tables.iter().flat_map(|table| statements::replace_view(table, target.version));
    change.extend(views);
    change
}

/// Returns the statements that delete the rows and the position of a version. One that is not active is then
/// built again.
fn empty(target: &ProjectionVersion, tracking: &str) -> Result<Vec<Sql>, PersistenceError> {
    let mut change = statements::begin_change(target);
    change.push(match target.state {
        VersionState::Active => statements::keep_effects_position(tracking, target),
        VersionState::Building | VersionState::Retired => {
            statements::set_state(target, VersionState::Building)
        }
        VersionState::Dropped => return Err(unusable(target)),
    });
    change.push(statements::delete_position(tracking, target));
    let tables = target.tables.iter().map(|table| version_table(table, target.version));
    change.extend(tables.map(|table| Sql::new(format!("DELETE FROM {table}"))));
    Ok(change)
}

fn find<'v>(
    versions: &'v [ProjectionVersion],
    name: &str,
    version: u32,
) -> Result<&'v ProjectionVersion, PersistenceError> {
    versions
        .iter()
        .find(|found| found.version == version)
        .ok_or_else(|| PersistenceError::programming(format!("projection {name:?} has no version {version}")))
}

fn active(versions: &[ProjectionVersion]) -> Result<&ProjectionVersion, PersistenceError> {
    let active = versions.iter().find(|version| version.state == VersionState::Active);
    active.ok_or_else(|| PersistenceError::programming("all versions of the projection were dropped"))
}

pub(super) fn unusable(version: &ProjectionVersion) -> PersistenceError {
    PersistenceError::programming(format!("{} is {}", version.title(), version.state))
}

fn behind(target: &ProjectionVersion, active: &ProjectionVersion, lag: i64) -> PersistenceError {
    let message = format!(
        "{} is at {}, {lag} notification ids behind version {}",
        target.title(),
        target.position,
        active.version
    );
    PersistenceError::operational(message).transient()
}

/// Returns whether a repetition of the change may succeed.
fn may_succeed(error: &PersistenceError) -> bool {
    error.is_transient() || error.is_outcome_unknown() || has_no_row(error)
}

/// Returns whether a statement that requires a row returned none.
pub(super) fn has_no_row(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| (*error).source()).any(<dyn Error>::is::<NoRow>)
}

async fn pause() {
    Signal::new().closed_timeout(PAUSE).await;
}

//! The comparison of all versions, and of the side effects, with the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use es_core::{ApplicationRecorder, TrackingRecorderExt};
use es_factory::VersionState;
use tokio::sync::watch;

use super::{
    Planted, project,
    projection::{Counted, NAME, OUTBOX},
};
use crate::{effects::check_effects, kill_point::KillPoint, test_database::TestDatabase};

/// The time limit for an undisturbed processor to catch up.
const CATCH_UP: Duration = Duration::from_secs(180);

/// Verifies the tables of each version and the side effects. Returns the numbers of versions, of changes, of
/// events and of side effects.
pub(super) async fn verify(database: &TestDatabase) -> Result<(usize, usize, usize, usize)> {
    // Positions and rows are read one after the other.
    database.wait_for_transactions().await?;
    let factory = database.factory()?;
    let versions = factory.projections().versions(NAME).await?;
    factory.close().await?;
    let (events, id) = match database {
        TestDatabase::Sqlite(_) => ("stored_events", "rowid"),
        TestDatabase::Postgres { .. } => ("faults_events", "notification_id"),
    };
    let log = database.numbers(events, id, id).await?;
    let until = |position: i64| log.partition_point(|id| *id <= position);
    let active: Vec<_> = versions.iter().filter(|version| version.state == VersionState::Active).collect();
    let [active] = &*active else { anyhow::bail!("the active versions are {active:?}") };
    let processed = active.position.max(active.live_from);
    let effects = database.numbers(OUTBOX, "notification", "number").await?;
    check_effects(&effects, &log[..until(processed)]).context("of all versions")?;
    for version in versions.iter().filter(|version| version.state != VersionState::Dropped) {
        let numbers = format!("numbers_v{}", version.version);
        let rows = database.numbers(&numbers, "notification", "notification").await?;
        check_effects(&rows, &log[..until(version.position)])
            .with_context(|| format!("in the rows of version {}", version.version))?;
        ensure!(version.position <= processed, "version {} is ahead of {processed}", version.version);
    }
    let changes = database.numbers("projection_versions", "epoch", "epoch").await?;
    let changes = changes.last().copied().and_then(|epoch| usize::try_from(epoch).ok()).unwrap_or(0);
    Ok((versions.len(), changes, log.len(), effects.len()))
}

/// Undisturbed processors bring the active version to the end of the log.
pub(super) async fn catch_up(database: &TestDatabase, planted: Option<Planted>) -> Result<()> {
    let factory = database.factory()?;
    let active = factory.projections().active(NAME).await?;
    factory.projections().resume(NAME, active.version).await?;
    let end = factory.application_recorder().await?.max_notification_id().await?.unwrap_or(0);
    let (stopper, stop) = watch::channel(false);
    let projection = Counted::new(KillPoint::new(None), planted);
    let positions = factory.tracking_recorder().await?;
    let (processed, waited) =
        tokio::join!(project(&factory, projection, fastrand::Rng::with_seed(1), stop), async {
            let waited = positions.wait(&active.consumer_name, end, CATCH_UP).await;
            stopper.send_replace(true);
            waited
        });
    processed?;
    waited?;
    Ok(factory.close().await?)
}

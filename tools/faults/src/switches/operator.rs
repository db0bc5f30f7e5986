//! Changes of the versions, at random.

use std::time::Duration;

use anyhow::Result;
use es_core::PersistenceError;
use es_factory::{InfrastructureFactory, ProjectionVersion, VersionState};
use tokio::{sync::watch, time::sleep};

use super::{
    Planted, is_explained,
    projection::{Counted, NAME},
};
use crate::{kill_point::KillPoint, test_database::TestDatabase};

/// The point before a change.
pub(super) const OPERATOR: &str = "Operator";

/// The number of versions that are kept at the same time.
const VERSIONS: usize = 3;

pub(super) async fn operate(
    factory: &InfrastructureFactory,
    database: &TestDatabase,
    kill_point: KillPoint,
    planted: Option<Planted>,
    mut random: fastrand::Rng,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    while !*stop.borrow() {
        sleep(Duration::from_millis(random.u64(0..30))).await;
        let versions = factory.projections().versions(NAME).await?;
        kill_point.pass(OPERATOR);
        if let Err(error) = change(factory, &versions, planted, &mut random).await
            && !is_explained(&error)
        {
            return Err(error.into());
        }
        if planted == Some(Planted::Mixture)
            && let Some(replaced) = factory.projections().active(NAME).await?.replaces
        {
            let view = format!("DROP VIEW sums; CREATE VIEW sums AS SELECT * FROM sums_v{replaced}");
            // The version may be dropped.
            let _ = database.execute(view).await;
        }
    }
    Ok(())
}

/// Makes a random change.
async fn change(
    factory: &InfrastructureFactory,
    versions: &[ProjectionVersion],
    planted: Option<Planted>,
    random: &mut fastrand::Rng,
) -> Result<(), PersistenceError> {
    let projections = factory.projections();
    let left: Vec<_> = versions.iter().filter(|version| version.state != VersionState::Dropped).collect();
    let Some(chosen) = random.choice(left.iter()) else { return Ok(()) };
    let version = chosen.version;
    match random.u8(0..16) {
        0..4 if left.len() < VERSIONS => {
            let next = versions.iter().map(|version| version.version).max().unwrap_or(0) + 1;
            let projection = Counted::new(KillPoint::new(None), planted);
            factory.versioned_projector(NAME, next, projection).await.map(drop)
        }
        0..6 => {
            let max_lag = [0, 10, i64::MAX][random.usize(0..3)];
            projections.switch(NAME, version, max_lag).await
        }
        6..8 => projections.catch_up_and_switch(NAME, version, Duration::from_millis(300)).await,
        8..10 => projections.rollback(NAME).await,
        10 => projections.pause(NAME, version).await,
        11..13 => projections.resume(NAME, version).await,
        13 if random.bool() => projections.rebuild(NAME, version).await,
        13 => projections.reset(NAME, version).await,
        _ if left.len() == VERSIONS => projections.drop(NAME, version).await,
        _ => Ok(()),
    }
}

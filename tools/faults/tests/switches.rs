//! A short run of what `cargo xtask faults --projections` does at length, and faults that it must find.

use std::path::Path;

use es_faults::switches::{self, Planted, Tally};

const PROGRAM: &str = env!("CARGO_BIN_EXE_es-faults");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_version_is_read_and_has_side_effects() {
    let mut tally = Tally::default();
    for seed in [0, 1] {
        match switches::run(seed, 2, Path::new(PROGRAM), None).await {
            Ok(outcome) => tally += outcome,
            Err(error) => panic!("{error:#}"),
        }
    }
    assert!(tally.killed + tally.self_killed > 0 && tally.changes > 0 && tally.effects > 0, "{tally}");
}

/// Planted faults are found, each in the way in which a real one would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_faults_are_found() {
    for (planted, reason) in
        [(Planted::Double, "effect"), (Planted::Skip, "effect"), (Planted::Mixture, "Read")]
    {
        let found = switches::run(3, 20, Path::new(PROGRAM), Some(planted)).await;
        let Err(error) = found else { panic!("{planted:?} is not found") };
        assert!(format!("{error:#}").contains(reason), "{planted:?}: {error:#}");
    }
}

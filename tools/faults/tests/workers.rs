//! A short run of what `cargo xtask faults --workers` does at length, and defects that its check must find.

#![allow(clippy::panic, reason = "these are tests")]

use std::path::Path;

use es_faults::workers::{self, Defect, Tally};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_es-faults"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_notification_has_one_effect() {
    let mut tally = Tally::default();
    // Each datastore has the segments once.
    for seed in [3, 4] {
        match workers::run(seed, 2, program(), None).await {
            Ok(outcome) => tally += outcome,
            Err(error) => panic!("{error:#}"),
        }
    }
    assert_eq!(tally.rounds, 4);
    assert!(tally.effects > 0, "{tally}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_skip_is_found() {
    expect(6, Defect::Skip, "had 0 effects instead of 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_double_is_found() {
    expect(9, Defect::Double, "had 2 effects instead of 1").await;
}

/// The worker pauses in a handler, until another one has its segments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_fence_is_found() {
    expect(12, Defect::Unfenced, "had 2 effects instead of 1").await;
}

async fn expect(seed: u64, defect: Defect, violation: &str) {
    match workers::run(seed, 4, program(), Some(defect)).await {
        Ok(tally) => panic!("the defect was not found: {tally}"),
        Err(error) => assert!(format!("{error:#}").contains(violation), "{error:#}"),
    }
}

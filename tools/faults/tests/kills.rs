//! A short run of what `cargo xtask faults` does at length.

use std::path::Path;

use es_faults::campaign::{self, Tally};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_after_kills() {
    let program = Path::new(env!("CARGO_BIN_EXE_es-faults"));
    let mut tally = Tally::default();
    // Each datastore is an upstream once.
    for seed in [1, 2, 3] {
        match campaign::run(seed, 2, program, None).await {
            Ok(outcome) => tally += outcome,
            Err(error) => panic!("{error:#}"),
        }
    }
    assert_eq!(tally.rounds, 6);
    assert!(tally.killed + tally.self_killed > 0, "{tally}");
    assert!(tally.acknowledged > 0, "{tally}");
}

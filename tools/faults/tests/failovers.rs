//! A short run of what `cargo xtask faults --failovers` does at length.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::process::Command;

use es_faults::cluster::Cluster;

/// Without a cluster, `cargo xtask test` reports that this was left out.
#[test]
fn promises_hold_after_failovers() {
    let Some(cluster) = Cluster::from_environment() else { return };
    let Ok(variables) = cluster.up() else { return };
    let mut campaign = Command::new(env!("CARGO_BIN_EXE_es-faults"));
    // With this seed, the ordering is the one that allows reads from standbys.
    let status = campaign.args(["--failovers", "2", "--seed", "0"]).envs(variables).status().unwrap();
    assert!(status.success());
}

//! Some seconds of what `cargo xtask soak --mixed` does at length, and defects that it must detect.

#![allow(clippy::panic, reason = "these are tests")]

use std::{path::Path, time::Duration};

use es_soak::mixed::{self, Defect, Report, Settings};

/// The number of puts within which each defect is detected.
const PUTS: usize = 100;

async fn run(is_parallel: bool, defects: &[Defect]) -> Option<Report> {
    if std::env::var_os("ES_TEST_WITHOUT_POSTGRES").is_some() {
        return None;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_es-soak"));
    let settings = Settings::new(program, is_parallel, Duration::from_secs(3));
    match mixed::run(&Settings { puts: PUTS, defects: defects.to_vec(), ..settings }).await {
        Ok(report) => Some(report),
        Err(error) => panic!("{error:#}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold_in_both_orderings() {
    for is_parallel in [false, true] {
        let Some(report) = run(is_parallel, &[]).await else { return };
        assert_eq!(report.violations, Vec::<String>::new(), "{report}");
        assert!(report.counts().seen > 0, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defects_are_noticed() {
    let serialized = [
        (Defect::EarlyId, "follower reader missed id"),
        (Defect::SkippingReader, "follower skipping missed id"),
        (Defect::LostEvent, "was acknowledged under ids"),
    ];
    // Processors miss ids that are drawn early, too, which would hide a repeated effect.
    let parallel = [
        (Defect::PlainReader, "follower reader missed id"),
        (Defect::DoubleEffect, "processor of rows saw id"),
        (Defect::LowerPosition, "the position of \"rows/mixed\" went from"),
    ];
    for (is_parallel, expected) in [(false, &serialized[..]), (true, &parallel[..])] {
        let defects: Vec<Defect> = expected.iter().map(|(defect, _)| *defect).collect();
        let Some(report) = run(is_parallel, &defects).await else { return };
        for (defect, violation) in expected {
            assert!(report.violations.iter().any(|found| found.contains(violation)), "{defect:?}: {report}");
        }
    }
}

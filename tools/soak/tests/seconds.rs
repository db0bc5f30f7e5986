//! Some seconds of what `cargo xtask soak` does at length: too short to see anything grow.

#![allow(clippy::panic, reason = "these are tests")]

use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_participants_work_and_no_event_is_missed() {
    let report = match es_soak::run(Duration::from_secs(4)).await {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    for (backend, meters) in &report.workloads {
        assert!(meters.recorded.count() > 0, "{backend:?}\n{meters}");
        assert!(meters.projected.count() >= meters.recorded.count(), "{backend:?}\n{meters}");
        assert!(meters.read.count() >= 3 * meters.recorded.count(), "{backend:?}\n{meters}");
        assert!(meters.recorders.count() > 0, "{backend:?}\n{meters}");
    }
    assert_eq!(report.growing(), Vec::<String>::new());
}

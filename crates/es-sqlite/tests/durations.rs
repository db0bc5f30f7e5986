//! Every option that is a duration takes any duration.
//!
//! The poll interval was added to the current time, which overflows for `Duration::MAX`. The
//! writer thread panicked with the first listener, and each later call failed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test unwraps the values that it expects")]

mod support;

use std::{convert::Infallible, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Notification, TrackingRecorder,
    TrackingRecorderExt,
};
use es_process::{Processor, RetryPolicy};
use es_sqlite::{SqliteOptions, SqliteProjection, rusqlite::Transaction};
use support::{database, event, process_recorder};

const DURATIONS: [Duration; 3] = [Duration::ZERO, Duration::MAX, Duration::from_nanos(u64::MAX)];

struct Nothing;

impl SqliteProjection for Nothing {
    type Error = Infallible;

    fn project(&mut self, _: &Transaction<'_>, _: &Notification) -> Result<(), Infallible> {
        Ok(())
    }
}

#[tokio::test]
async fn any_duration_is_accepted() {
    for duration in DURATIONS {
        let (_directory, path) = database();
        let options = SqliteOptions::new(&path).lock_timeout(duration).poll_interval(duration);
        let recorder = process_recorder(options).await;
        let mut listener = recorder.commit_signal().listen::<&str>([]);
        let mut subscription = recorder.subscribe(0, []).poll_interval(duration);
        // More calls than one: the first is accepted before the writer thread polls for commits.
        for version in 1..=3 {
            let ids = recorder.insert_events(vec![event(1, version)]).await.unwrap();
            assert_eq!(ids, [version], "{duration:?}");
            assert!(listener.notified_timeout(duration).await);
            let page = subscription.next_page().await.unwrap().expect("the recorder is open");
            assert_eq!(page.position, version);
        }

        let projector = recorder.projector(Nothing).await.unwrap();
        let retries = RetryPolicy { max_retries: 3, first_pause: duration, longest_pause: duration };
        let processor = Processor::with_consumer("bank", recorder.clone(), projector);
        let mut processor = processor.poll_interval(duration).standby_pause(duration).retries(retries);
        let running = tokio::spawn(async move { processor.run().await });
        recorder.wait("bank", 3, duration.max(Duration::from_secs(30))).await.unwrap();
        assert_eq!(recorder.max_tracking_id("bank").await.unwrap(), Some(3));
        recorder.datastore().close().await.unwrap();
        running.await.unwrap().unwrap();
    }
}

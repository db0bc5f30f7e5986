//! Partitioned consumers on each datastore.

#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod behaviour;
mod shared_reads;
mod support;
mod workers;

/// The tests of each datastore.
macro_rules! on_each_datastore {
    ($($(#[$attribute:meta])* $test:ident),+ $(,)?) => {
        mod in_memory {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::workers::$test(crate::support::popo().await).await;
            })+
        }

        mod on_sqlite {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let directory = tempfile::tempdir().unwrap();
                crate::workers::$test(crate::support::sqlite(directory.path()).await).await;
            })+
        }

        mod on_postgres {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(recorder) = crate::support::postgres().await {
                    crate::workers::$test(recorder).await;
                }
            })+
        }
    };
}

on_each_datastore!(
    changes_follow_the_rules,
    a_commit_of_an_earlier_epoch_is_refused,
    the_first_commit_of_an_earlier_epoch_is_refused,
    workers_that_join_and_leave_process_each_notification_once,
    a_worker_that_lost_its_segment_between_handling_and_commit_records_nothing,
    an_event_is_not_skipped_after_a_crash,
    a_position_does_not_pass_an_unprocessed_event,
    segments_are_split_and_merged_while_workers_run,
    a_consumer_that_was_not_partitioned_continues,
    a_recorded_position_may_be_zero,
    a_worker_that_is_paused_after_its_claim_records_nothing,
    changes_at_the_same_time_exclude_each_other,
    consumers_may_have_any_valid_name,
);

#[test]
fn skips_doubles_and_disorder_are_found() {
    use es_core::Notification;

    let log: Vec<_> = [(1, 1), (2, 2), (3, 1), (4, 2)]
        .into_iter()
        .map(|(id, originator)| Notification { id, event: support::event(originator, id) })
        .collect();
    assert_eq!(support::check(&log, &[2, 1, 4, 3], 4), Ok(()));
    for effects in [&[1, 2, 3][..], &[1, 2, 3, 4, 4], &[3, 2, 1, 4], &[1, 2, 3, 4, 5]] {
        assert!(support::check(&log, effects, 4).is_err(), "{effects:?}");
    }
}

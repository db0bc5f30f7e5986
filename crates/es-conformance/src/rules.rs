//! The list of the rules, and the macros that make tests of them.

use std::{future::Future, pin::Pin};

use crate::Fixture;

/// A rule, for a kind of fixture.
#[derive(Debug)]
pub struct Rule<F> {
    /// The name of the rule, such as `aggregate::an_empty_batch_succeeds`.
    pub name: &'static str,
    /// Panics if a recorder of the fixture breaks the rule.
    pub check: Check<F>,
}

/// The function of a [`Rule`].
pub type Check<F> = for<'a> fn(&'a F) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The only list of the rules: the tests, and the proof that each rule can fail, are
/// made from this list.
#[doc(hidden)]
#[macro_export]
macro_rules! __rules {
    (aggregate, $($then:tt)*) => { $crate::__each_rule! { aggregate, $($then)*,
        an_empty_batch_succeeds
        an_unknown_aggregate_has_no_events
        topics_are_unicode
        topics_may_be_long
        a_state_may_be_empty
        a_state_may_contain_any_byte
        a_state_may_be_large
        nil_and_max_uuids_are_valid_ids
        ids_are_compared_in_full
        a_batch_may_span_aggregates
        a_batch_may_be_large
        events_are_ordered_by_version
        versions_cover_the_bigint_range
        gt_is_exclusive
        lte_is_inclusive
        desc_reverses_the_order
        limit_bounds_a_selection
        limit_zero_selects_no_events
        limit_may_exceed_bigint
        range_options_combine
        bounds_cover_the_bigint_range
        a_recorded_version_is_refused
        a_duplicate_version_in_a_batch_is_refused
        a_duplicate_version_in_a_batch_is_no_conflict
        a_conflict_names_the_version
        a_refused_batch_records_nothing
        a_conflict_does_not_change_recorded_events
        the_recorder_is_usable_after_a_conflict
        calls_after_close_fail
        close_is_idempotent
        close_leaves_other_recorders_open
        events_persist_after_close
        events_are_visible_to_other_recorders
    } };
    (event_streams, $($then:tt)*) => { $crate::__each_rule! { event_streams, $($then)*,
        event_pages_form_one_sequence
        range_options_apply_across_event_pages
        limit_bounds_an_event_stream
        an_error_ends_an_event_stream
        event_streams_are_cancel_safe
        concurrent_inserts_do_not_disturb_an_event_stream
    } };
    (concurrency, $($then:tt)*) => { $crate::__each_rule! { concurrency, $($then)*,
        concurrent_writers_lose_no_events
        readers_see_complete_batches
        a_cancelled_insert_is_atomic
        dropped_futures_leave_the_recorder_usable
        close_waits_for_accepted_writes
    } };
    (application, $($then:tt)*) => { $crate::__each_rule! { application, $($then)*,
        insert_returns_ids_in_event_order
        ids_are_positive
        ids_increase
        ids_of_a_batch_are_contiguous
        notifications_are_ordered_by_id
        start_is_inclusive
        after_is_exclusive
        stop_is_inclusive
        limit_bounds_a_page
        limit_zero_selects_no_notifications
        page_limit_may_exceed_bigint
        a_topic_filter_selects_its_events
        a_filter_may_have_several_topics
        an_unused_topic_selects_nothing
        selection_options_combine
        start_beyond_the_end_selects_nothing
        stop_before_start_selects_nothing
        selection_bounds_cover_the_bigint_range
        an_empty_recorder_has_no_max_notification_id
        the_max_notification_id_is_that_of_the_last_event
        refused_events_are_never_visible
        reading_notifications_fails_after_close
        the_order_persists_after_close
        notifications_are_visible_to_other_recorders
        tailing_readers_miss_no_notifications
        batches_are_not_interleaved
    } };
    (notification_streams, $($then:tt)*) => { $crate::__each_rule! { notification_streams, $($then)*,
        notification_pages_form_one_sequence
        selection_options_apply_across_pages
        limit_bounds_a_notification_stream
        gaps_do_not_end_a_stream
        an_error_ends_a_notification_stream
        notification_streams_are_cancel_safe
        notifications_recorded_between_pages_are_streamed
    } };
    (subscriptions, $($then:tt)*) => { $crate::__each_rule! { subscriptions, $($then)*,
        a_subscription_starts_after_its_position
        a_subscription_beyond_the_end_fails
        concurrent_writes_are_delivered_once
        concurrent_writes_of_a_topic_are_delivered_once
        topic_filters_work_with_any_page_size
        the_position_advances_past_other_topics
        a_lagging_subscription_catches_up
        a_subscription_can_be_resumed
        close_ends_a_waiting_subscription
        close_ends_an_active_subscription_in_order
        close_leaves_other_subscriptions_open
    } };
    (commit_signal, $($then:tt)*) => { $crate::__each_rule! { commit_signal, $($then)*,
        a_commit_notifies_listeners
        every_topic_of_a_commit_notifies
        every_listener_is_notified
        listeners_are_notified_after_the_commit
        a_cancelled_insert_notifies_if_it_committed
        commits_of_other_recorders_notify
        commits_of_other_recorders_notify_later_listeners
    } };
    (tracking, $($then:tt)*) => { $crate::__each_rule! { tracking, $($then)*,
        there_is_no_initial_position
        nothing_is_processed_initially
        positions_increase
        notifications_up_to_the_position_are_processed
        an_equal_position_is_refused
        a_smaller_position_is_refused
        a_span_that_overlaps_the_position_is_refused
        a_conflict_names_the_position
        a_refused_position_changes_nothing
        applications_are_tracked_separately
        application_names_are_compared_exactly
        application_names_are_unicode
        the_reserved_name_has_no_position
        positions_cover_the_bigint_range
        a_matching_expected_position_is_accepted
        an_expected_position_behind_the_recorded_one_is_refused
        an_expected_position_ahead_of_the_recorded_one_is_refused
        one_of_several_consumers_records_a_position
        positions_never_decrease
        applications_do_not_block_each_other
        tracking_fails_after_close
        positions_persist_after_close
    } };
    (waiting, $($then:tt)*) => { $crate::__each_rule! { waiting, $($then)*,
        a_wait_for_a_processed_notification_returns_immediately
        a_recorded_position_notifies_listeners
        a_recorded_position_ends_a_wait
        a_later_position_ends_a_wait
        another_application_does_not_end_a_wait
        a_wait_times_out
        all_waiting_tasks_are_notified
        close_ends_a_wait
        close_leaves_other_waits_open
        waiting_is_cancel_safe
        positions_of_other_recorders_notify
    } };
    (process, $($then:tt)*) => { $crate::__each_rule! { process, $($then)*,
        events_and_position_are_recorded_together
        insert_with_tracking_returns_ids
        a_position_may_be_recorded_without_events
        events_without_tracking_leave_the_position_unchanged
        a_refused_position_records_no_events
        refused_events_record_no_position
        a_conflict_names_its_cause
        a_tracking_conflict_takes_precedence
        events_require_the_expected_position
        concurrent_expected_positions_are_recorded_in_order
        one_of_several_consumers_processes_a_notification
        cancelled_processing_is_atomic
        processing_notifies_subscribers
        processing_notifies_waiting_tasks
        a_position_beyond_the_log_is_an_error
        processing_fails_after_close
    } };
}

/// Makes a test of each rule, or a list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_rule {
    ($rules:ident, tests of $fixture:path, $($rule:ident)*) => {
        $(
            #[test]
            fn $rule() {
                $crate::run($fixture, $crate::$rules::$rule);
            }
        )*
    };
    ($rules:ident, list, $($rule:ident)*) => {
        [$(
            $crate::Rule {
                name: concat!(stringify!($rules), "::", stringify!($rule)),
                check: |fixture| Box::pin($crate::$rules::$rule(fixture)),
            },
        )*]
    };
}

/// The tests of a tier: its rules, and random operations, on the recorder itself and on its object-safe
/// version.
#[doc(hidden)]
#[macro_export]
macro_rules! __tier_tests {
    ($fixture:expr, $tier:ident, $Recorder:ident, $Boxed:ident, $($rules:ident)*) => {
        async fn conformance_fixture()
        -> impl $crate::Fixture<Recorder: $crate::es_core::$Recorder> {
            ($fixture)().await
        }

        async fn boxed_conformance_fixture()
        -> impl $crate::Fixture<Recorder: $crate::es_core::$Recorder> {
            $crate::$Boxed(conformance_fixture().await)
        }

        mod concrete {
            #[test]
            fn random_operations_agree_with_the_model() {
                $crate::model::$tier(super::conformance_fixture);
            }

            $(mod $rules {
                $crate::__rules! { $rules, tests of super::super::conformance_fixture }
            })*
        }

        mod boxed {
            #[test]
            fn random_operations_agree_with_the_model() {
                $crate::model::$tier(super::boxed_conformance_fixture);
            }

            $(mod $rules {
                $crate::__rules! { $rules, tests of super::super::boxed_conformance_fixture }
            })*
        }
    };
}

/// One test for each rule of aggregate recorders, on the recorder itself and on its object-safe version.
///
/// See the [crate documentation](crate).
#[macro_export]
macro_rules! aggregate_recorder_tests {
    ($fixture:expr $(,)?) => {
        $crate::__tier_tests! {
            $fixture, aggregate, AggregateRecorder, BoxedAggregate, aggregate event_streams concurrency
        }
    };
}

/// One test for each rule of application recorders, those of aggregate recorders included.
///
/// See the [crate documentation](crate).
#[macro_export]
macro_rules! application_recorder_tests {
    ($fixture:expr $(,)?) => {
        $crate::__tier_tests! {
            $fixture, application, ApplicationRecorder, BoxedApplication,
            aggregate event_streams concurrency application notification_streams subscriptions commit_signal
        }
    };
}

/// One test for each rule of tracking recorders, on the recorder itself and on its object-safe version.
///
/// See the [crate documentation](crate).
#[macro_export]
macro_rules! tracking_recorder_tests {
    ($fixture:expr $(,)?) => {
        $crate::__tier_tests! { $fixture, tracking, TrackingRecorder, BoxedTracking, tracking waiting }
    };
}

/// One test for each rule of process recorders, those of all other tiers included.
///
/// See the [crate documentation](crate).
#[macro_export]
macro_rules! process_recorder_tests {
    ($fixture:expr $(,)?) => {
        $crate::__tier_tests! {
            $fixture, process, ProcessRecorder, BoxedProcess,
            aggregate event_streams concurrency application notification_streams subscriptions commit_signal
            tracking waiting process
        }
    };
}

/// Every rule of all tiers, for a test harness of one's own.
pub fn process_rules<F: Fixture<Recorder: es_core::ProcessRecorder>>() -> Vec<Rule<F>> {
    let mut rules: Vec<Rule<F>> = Vec::new();
    rules.extend(__rules! { aggregate, list });
    rules.extend(__rules! { event_streams, list });
    rules.extend(__rules! { concurrency, list });
    rules.extend(__rules! { application, list });
    rules.extend(__rules! { notification_streams, list });
    rules.extend(__rules! { subscriptions, list });
    rules.extend(__rules! { commit_signal, list });
    rules.extend(__rules! { tracking, list });
    rules.extend(__rules! { waiting, list });
    rules.extend(__rules! { process, list });
    rules
}

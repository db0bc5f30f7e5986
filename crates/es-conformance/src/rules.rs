//! The list of the rules, and the macros that make tests of them.

use std::{future::Future, pin::Pin};

use crate::Fixture;

/// A rule, for a kind of fixture.
#[derive(Debug)]
pub struct Rule<F> {
    /// The name of the rule, such as `aggregate::inserting_nothing_is_fine`.
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
        inserting_nothing_is_fine
        an_unknown_aggregate_has_no_events
        topics_are_unicode
        topics_may_be_long
        a_state_may_be_empty
        a_state_may_hold_every_byte
        a_state_may_be_large
        nil_and_max_are_ids
        similar_ids_are_different
        a_batch_may_span_aggregates
        a_batch_may_be_large
        versions_may_come_in_any_order
        versions_are_any_bigint
        gt_leaves_out_its_bound
        lte_takes_in_its_bound
        desc_reads_backwards
        limit_ends_a_selection
        limit_zero_selects_no_events
        limit_may_be_any_usize
        options_of_a_range_go_together
        bounds_are_any_bigint
        a_taken_version_is_refused
        a_version_twice_in_a_batch_is_refused
        a_conflict_names_the_version
        a_refused_batch_records_nothing
        a_conflict_leaves_what_is_recorded
        a_conflict_leaves_the_recorder_usable
        a_closed_recorder_says_so
        closing_twice_is_fine
        events_outlive_the_recorder
        another_recorder_reads_the_events
    } };
    (event_streams, $($then:tt)*) => { $crate::__each_rule! { event_streams, $($then)*,
        pages_of_events_join
        bounds_hold_across_pages_of_events
        the_limit_ends_a_stream_of_events
        a_stream_of_events_ends_with_an_error
        dropped_streams_of_events_do_no_harm
        events_recorded_between_pages_do_no_harm
    } };
    (concurrency, $($then:tt)*) => { $crate::__each_rule! { concurrency, $($then)*,
        racing_writers_lose_no_event
        readers_see_whole_batches
        a_dropped_insertion_is_whole_or_nothing
        dropped_futures_do_no_harm
        closing_finishes_what_was_accepted
    } };
    (application, $($then:tt)*) => { $crate::__each_rule! { application, $($then)*,
        ids_come_back_in_the_order_of_events
        ids_are_positive
        ids_increase
        ids_of_a_batch_are_contiguous
        notifications_are_in_order
        start_takes_in_its_bound
        after_leaves_out_its_bound
        stop_takes_in_its_bound
        limit_ends_a_page
        limit_zero_selects_no_notifications
        a_page_may_be_of_any_usize
        a_topic_selects_its_events
        several_topics_select_their_events
        an_unused_topic_selects_nothing
        options_of_a_selection_go_together
        starting_beyond_the_end_selects_nothing
        stopping_before_the_start_selects_nothing
        bounds_of_a_selection_are_any_bigint
        an_empty_recorder_has_no_highest_id
        the_highest_id_is_that_of_the_last_event
        refused_events_never_surface
        a_closed_recorder_has_no_notifications
        the_order_outlives_the_recorder
        another_recorder_reads_the_notifications
        tailing_readers_miss_nothing
        batches_are_not_interleaved
    } };
    (notification_streams, $($then:tt)*) => { $crate::__each_rule! { notification_streams, $($then)*,
        pages_of_notifications_join
        options_hold_across_pages_of_notifications
        the_limit_ends_a_stream_of_notifications
        gaps_do_not_end_a_stream
        a_stream_of_notifications_ends_with_an_error
        dropped_streams_of_notifications_do_no_harm
        notifications_recorded_between_pages_are_streamed
    } };
    (subscriptions, $($then:tt)*) => { $crate::__each_rule! { subscriptions, $($then)*,
        a_subscription_begins_after_its_position
        a_subscription_beyond_the_end_fails
        nothing_is_missed_while_others_write
        nothing_of_a_topic_is_missed_while_others_write
        topics_are_followed_page_by_page
        the_position_moves_past_other_topics
        a_lagging_subscription_catches_up
        a_dropped_subscription_is_resumed
        closing_ends_a_waiting_subscription
        closing_ends_a_busy_subscription_in_order
    } };
    (wakes, $($then:tt)*) => { $crate::__each_rule! { wakes, $($then)*,
        a_commit_wakes_who_listens
        every_topic_of_a_commit_wakes
        every_listener_is_woken
        a_wake_up_comes_after_the_commit
        what_a_dropped_insertion_records_wakes
        others_commits_wake
        others_commits_wake_later_listeners
    } };
    (tracking, $($then:tt)*) => { $crate::__each_rule! { tracking, $($then)*,
        there_is_no_position_at_first
        nothing_is_processed_at_first
        positions_move_forward
        what_is_up_to_the_position_is_processed
        an_equal_position_is_refused
        a_smaller_position_is_refused
        a_position_that_accounts_for_processed_notifications_is_refused
        a_conflict_names_the_position
        a_refused_position_changes_nothing
        applications_are_tracked_apart
        names_are_compared_exactly
        names_are_unicode
        the_reserved_name_has_no_position
        positions_are_any_bigint
        a_position_follows_the_expected_one
        a_position_that_expects_an_earlier_one_is_refused
        a_position_that_expects_a_later_one_is_refused
        one_consumer_wins_a_position
        positions_never_go_back
        applications_do_not_hinder_each_other
        a_closed_recorder_tracks_nothing
        positions_outlive_the_recorder
    } };
    (waiting, $($then:tt)*) => { $crate::__each_rule! { waiting, $($then)*,
        what_is_processed_is_not_waited_for
        a_recorded_position_wakes_who_listens
        a_recorded_position_ends_waiting
        a_later_position_ends_waiting
        another_application_does_not_end_waiting
        waiting_times_out
        everybody_who_waits_is_woken
        closing_ends_waiting
        dropped_waiting_does_no_harm
        others_positions_wake
    } };
    (process, $($then:tt)*) => { $crate::__each_rule! { process, $($then)*,
        events_and_position_are_recorded_together
        ids_come_back_with_tracking
        a_position_needs_no_events
        events_alone_move_no_position
        a_refused_position_records_no_events
        refused_events_record_no_position
        a_conflict_names_what_collided
        a_lost_position_is_told_first
        events_follow_the_expected_position
        expected_positions_hold_at_once
        one_consumer_processes_a_notification
        dropped_processing_is_whole_or_nothing
        processing_wakes_who_follows
        processing_wakes_who_waits
        a_position_beyond_the_log_is_noticed
        a_closed_recorder_processes_nothing
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
            aggregate event_streams concurrency application notification_streams subscriptions wakes
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
            aggregate event_streams concurrency application notification_streams subscriptions wakes
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
    rules.extend(__rules! { wakes, list });
    rules.extend(__rules! { tracking, list });
    rules.extend(__rules! { waiting, list });
    rules.extend(__rules! { process, list });
    rules
}

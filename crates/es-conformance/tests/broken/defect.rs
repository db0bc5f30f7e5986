//! The defects, and the rule that each breaks.

macro_rules! defects {
    ($($Defect:ident breaks $rules:ident::$rule:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Defect {
            $($Defect,)*
        }

        impl Defect {
            pub(crate) const ALL: &[Self] = &[$(Self::$Defect,)*];

            /// The rule that this defect breaks.
            pub(crate) const fn broken_rule(self) -> &'static str {
                match self {
                    $(Self::$Defect => concat!(stringify!($rules), "::", stringify!($rule)),)*
                }
            }
        }
    };
}

defects! {
    EmptyBatchFails breaks aggregate::an_empty_batch_succeeds,
    UnknownAggregateFails breaks aggregate::an_unknown_aggregate_has_no_events,
    TopicsAreAscii breaks aggregate::topics_are_unicode,
    TopicsAreCutOff breaks aggregate::topics_may_be_long,
    EmptyStateBecomesNull breaks aggregate::a_state_may_be_empty,
    StateEndsAtNul breaks aggregate::a_state_may_contain_any_byte,
    StateIsCutOff breaks aggregate::a_state_may_be_large,
    NilIsRefused breaks aggregate::nil_and_max_uuids_are_valid_ids,
    SimilarIdsAreOne breaks aggregate::ids_are_compared_in_full,
    LastRunOfAnAggregateWins breaks aggregate::a_batch_may_span_aggregates,
    BatchIsCutOff breaks aggregate::a_batch_may_be_large,
    EventsAreInOrderOfInsertion breaks aggregate::events_are_ordered_by_version,
    NegativeVersionsFail breaks aggregate::versions_cover_the_bigint_range,
    GtIsInclusive breaks aggregate::gt_is_exclusive,
    LteIsExclusive breaks aggregate::lte_is_inclusive,
    DescIsIgnored breaks aggregate::desc_reverses_the_order,
    EventLimitIsIgnored breaks aggregate::limit_bounds_a_selection,
    EventLimitZeroIsNone breaks aggregate::limit_zero_selects_no_events,
    EventLimitIsCast breaks aggregate::limit_may_exceed_bigint,
    GtIsIgnoredWithLte breaks aggregate::range_options_combine,
    GtOverflows breaks aggregate::bounds_cover_the_bigint_range,
    SameEventIsAccepted breaks aggregate::a_recorded_version_is_refused,
    DuplicateInBatchIsDropped breaks aggregate::a_duplicate_version_in_a_batch_is_refused,
    DuplicateInBatchIsAConflict breaks aggregate::a_duplicate_version_in_a_batch_is_no_conflict,
    VersionIsNotNamed breaks aggregate::a_conflict_names_the_version,
    BatchIsWrittenUpToTheConflict breaks aggregate::a_refused_batch_records_nothing,
    ConflictOverwrites breaks aggregate::a_conflict_does_not_change_recorded_events,
    ConflictStopsInsertions breaks aggregate::the_recorder_is_usable_after_a_conflict,
    ClosedStillSelects breaks aggregate::calls_after_close_fail,
    ClosingAgainFails breaks aggregate::close_is_idempotent,
    ClosingClosesOthers breaks aggregate::close_leaves_other_recorders_open,
    LastEventIsLostOnClose breaks aggregate::events_persist_after_close,
    OtherRecorderIsStale breaks aggregate::events_are_visible_to_other_recorders,

    EventPagesSkip breaks event_streams::event_pages_form_one_sequence,
    GtIsIgnoredInPagesOfTwo breaks event_streams::range_options_apply_across_event_pages,
    LaterPageOfTwoIsLonger breaks event_streams::limit_bounds_an_event_stream,
    ClosedHasEmptyPagesOfEvents breaks event_streams::an_error_ends_an_event_stream,
    DroppedPageOfEventsStopsInsertions breaks event_streams::event_streams_are_cancel_safe,
    PagesAreCountedFromTheEnd breaks event_streams::concurrent_inserts_do_not_disturb_an_event_stream,

    UpdateIsLost breaks concurrency::concurrent_writers_lose_no_events,
    BatchOfTwoIsSplit breaks concurrency::readers_see_complete_batches,
    HalfIsWrittenWhenDropped breaks concurrency::a_cancelled_insert_is_atomic,
    DroppedReadStopsInsertions breaks concurrency::dropped_futures_leave_the_recorder_usable,
    ClosingLosesAcceptedWrites breaks concurrency::close_waits_for_accepted_writes,

    IdsComeBackReversed breaks application::insert_returns_ids_in_event_order,
    IdsBeginAtZero breaks application::ids_are_positive,
    IdOfOneEventIsStale breaks application::ids_increase,
    IdsHaveGaps breaks application::ids_of_a_batch_are_contiguous,
    NotificationsAreInOrderOfAggregates breaks application::notifications_are_ordered_by_id,
    StartIsExclusive breaks application::start_is_inclusive,
    AfterIsInclusive breaks application::after_is_exclusive,
    StopIsExclusive breaks application::stop_is_inclusive,
    LimitIsIgnored breaks application::limit_bounds_a_page,
    LimitZeroIsNone breaks application::limit_zero_selects_no_notifications,
    LimitIsCast breaks application::page_limit_may_exceed_bigint,
    TopicIsIgnored breaks application::a_topic_filter_selects_its_events,
    OnlyFirstTopicCounts breaks application::a_filter_may_have_several_topics,
    UnusedTopicIsIgnored breaks application::an_unused_topic_selects_nothing,
    StopIsIgnoredWithTopics breaks application::selection_options_combine,
    StartIsClamped breaks application::start_beyond_the_end_selects_nothing,
    BoundsAreSwapped breaks application::stop_before_start_selects_nothing,
    AfterOverflows breaks application::selection_bounds_cover_the_bigint_range,
    EmptyHasHighestIdZero breaks application::an_empty_recorder_has_no_max_notification_id,
    HighestIdIsTheFirstOfItsBatch breaks application::the_max_notification_id_is_that_of_the_last_event,
    RefusedEventsAreVisible breaks application::refused_events_are_never_visible,
    ClosedStillKnowsTheHighestId breaks application::reading_notifications_fails_after_close,
    OrderBeginsAnewWhenReopened breaks application::the_order_persists_after_close,
    OtherRecorderHasAStaleHighestId breaks application::notifications_are_visible_to_other_recorders,
    LateNotificationIsSkipped breaks application::tailing_readers_miss_no_notifications,
    BatchOfThreeIsSplit breaks application::batches_are_not_interleaved,

    NotificationPagesSkip breaks notification_streams::notification_pages_form_one_sequence,
    TopicsAreIgnoredInPagesOfThree breaks notification_streams::selection_options_apply_across_pages,
    PageOfFourIsLonger breaks notification_streams::limit_bounds_a_notification_stream,
    GapsShortenPages breaks notification_streams::gaps_do_not_end_a_stream,
    ClosedHasEmptyPages breaks notification_streams::an_error_ends_a_notification_stream,
    DroppedPageOfEightStopsInsertions breaks
        notification_streams::notification_streams_are_cancel_safe,
    PagesOfSixEndAtASnapshot breaks
        notification_streams::notifications_recorded_between_pages_are_streamed,

    AfterIsInclusiveForPagesOf21 breaks subscriptions::a_subscription_starts_after_its_position,
    BeyondTheEndIsTheBeginning breaks subscriptions::a_subscription_beyond_the_end_fails,
    LateNotificationIsNotFollowed breaks subscriptions::concurrent_writes_are_delivered_once,
    LateNotificationOfATopicIsNotFollowed breaks
        subscriptions::concurrent_writes_of_a_topic_are_delivered_once,
    LimitCountsOtherTopics breaks subscriptions::topic_filters_work_with_any_page_size,
    HighestIdLeavesOutATopic breaks subscriptions::the_position_advances_past_other_topics,
    PageOfTenIsLonger breaks subscriptions::a_lagging_subscription_catches_up,
    DroppedPageOfNineIsLost breaks subscriptions::a_subscription_can_be_resumed,
    ClosingForgetsFollowers breaks subscriptions::close_ends_a_waiting_subscription,
    ClosingIsSignalledLate breaks subscriptions::close_ends_an_active_subscription_in_order,
    ClosingEndsOtherSubscriptions breaks subscriptions::close_leaves_other_subscriptions_open,

    BatchOfFiveDoesNotNotify breaks commit_signal::a_commit_notifies_listeners,
    OnlyFirstTopicNotifies breaks commit_signal::every_topic_of_a_commit_notifies,
    LateListenersAreNotNotified breaks commit_signal::every_listener_is_notified,
    NotifiesBeforeTheCommit breaks commit_signal::listeners_are_notified_after_the_commit,
    CancelledInsertDoesNotNotify breaks commit_signal::a_cancelled_insert_notifies_if_it_committed,
    FirstCommitOfOthersIsMissed breaks commit_signal::commits_of_other_recorders_notify,
    OthersAreDetectedOnce breaks commit_signal::commits_of_other_recorders_notify_later_listeners,

    ApplicationNamesAreIgnored breaks tracking::there_is_no_initial_position,
    NoPositionMeansZero breaks tracking::nothing_is_processed_initially,
    ThirdPositionIsIgnored breaks tracking::positions_increase,
    OnlyThePositionIsProcessed breaks tracking::notifications_up_to_the_position_are_processed,
    LoneRecorderAcceptsEqual breaks tracking::an_equal_position_is_refused,
    OneBeforeIsAccepted breaks tracking::a_smaller_position_is_refused,
    FirstOfASpanIsIgnored breaks tracking::a_span_that_overlaps_the_position_is_refused,
    PositionIsNotNamed breaks tracking::a_conflict_names_the_position,
    RefusedPositionIsRecorded breaks tracking::a_refused_position_changes_nothing,
    ApplicationsShareOnePosition breaks tracking::applications_are_tracked_separately,
    NamesIgnoreCase breaks tracking::application_names_are_compared_exactly,
    NamesMustBeAscii breaks tracking::application_names_are_unicode,
    ReservedNameHasAPosition breaks tracking::the_reserved_name_has_no_position,
    NegativePositionsFail breaks tracking::positions_cover_the_bigint_range,
    GapsBehindTheExpectedPositionAreRefused breaks tracking::a_matching_expected_position_is_accepted,
    EarlierExpectationIsAccepted breaks tracking::an_expected_position_behind_the_recorded_one_is_refused,
    LaterExpectationIsAConflict breaks tracking::an_expected_position_ahead_of_the_recorded_one_is_refused,
    RacingConsumersBothWin breaks tracking::one_of_several_consumers_records_a_position,
    LatePositionOverwrites breaks tracking::positions_never_decrease,
    ThirdApplicationIsRefused breaks tracking::applications_do_not_block_each_other,
    ClosedStillKnowsPositions breaks tracking::tracking_fails_after_close,
    PositionIsLostOnClose breaks tracking::positions_persist_after_close,

    PositionIsReadableLate breaks waiting::a_wait_for_a_processed_notification_returns_immediately,
    PositionDoesNotNotify breaks waiting::a_recorded_position_notifies_listeners,
    NewPositionIsUnreadable breaks waiting::a_recorded_position_ends_a_wait,
    OnlyItsPositionEndsWaiting breaks waiting::a_later_position_ends_a_wait,
    AnyApplicationEndsWaiting breaks waiting::another_application_does_not_end_a_wait,
    UnknownApplicationFails breaks waiting::a_wait_times_out,
    LateWaitersAreNotNotified breaks waiting::all_waiting_tasks_are_notified,
    ClosingForgetsPositions breaks waiting::close_ends_a_wait,
    ClosingEndsOtherWaits breaks waiting::close_leaves_other_waits_open,
    DroppedWaitingStopsTracking breaks waiting::waiting_is_cancel_safe,
    PositionsOfOthersDoNotNotify breaks waiting::positions_of_other_recorders_notify,

    PositionIsForgottenWithEvents breaks process::events_and_position_are_recorded_together,
    NoIdsWithTracking breaks process::insert_with_tracking_returns_ids,
    PositionWithoutEventsIsForgotten breaks process::a_position_may_be_recorded_without_events,
    EventsAloneMoveThePosition breaks process::events_without_tracking_leave_the_position_unchanged,
    EventsBeforePosition breaks process::a_refused_position_records_no_events,
    PositionBeforeEvents breaks process::refused_events_record_no_position,
    ConflictIsNotNamedWithTracking breaks process::a_conflict_names_its_cause,
    VersionConflictTakesPrecedence breaks process::a_tracking_conflict_takes_precedence,
    ExpectedPositionIsIgnoredWithEvents breaks process::events_require_the_expected_position,
    EventsOfAPositionFarBeyondAreRecorded breaks process::concurrent_expected_positions_are_recorded_in_order,
    RacingConsumersBothProcess breaks process::one_of_several_consumers_processes_a_notification,
    PositionIsWrittenWhenDropped breaks process::cancelled_processing_is_atomic,
    ProcessingDoesNotNotifySubscribers breaks process::processing_notifies_subscribers,
    ProcessingDoesNotNotifyWaiters breaks process::processing_notifies_waiting_tasks,
    PositionEndsWithTheLog breaks process::a_position_beyond_the_log_is_an_error,
    ClosedStillProcesses breaks process::processing_fails_after_close,
}

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
    EmptyBatchFails breaks aggregate::inserting_nothing_is_fine,
    UnknownAggregateFails breaks aggregate::an_unknown_aggregate_has_no_events,
    TopicsAreAscii breaks aggregate::topics_are_unicode,
    TopicsAreCutOff breaks aggregate::topics_may_be_long,
    EmptyStateBecomesNull breaks aggregate::a_state_may_be_empty,
    StateEndsAtNul breaks aggregate::a_state_may_hold_every_byte,
    StateIsCutOff breaks aggregate::a_state_may_be_large,
    NilIsRefused breaks aggregate::nil_and_max_are_ids,
    SimilarIdsAreOne breaks aggregate::similar_ids_are_different,
    LastRunOfAnAggregateWins breaks aggregate::a_batch_may_span_aggregates,
    BatchIsCutOff breaks aggregate::a_batch_may_be_large,
    EventsAreInOrderOfInsertion breaks aggregate::versions_may_come_in_any_order,
    NegativeVersionsFail breaks aggregate::versions_are_any_bigint,
    GtIsInclusive breaks aggregate::gt_leaves_out_its_bound,
    LteIsExclusive breaks aggregate::lte_takes_in_its_bound,
    DescIsIgnored breaks aggregate::desc_reads_backwards,
    EventLimitIsIgnored breaks aggregate::limit_ends_a_selection,
    EventLimitZeroIsNone breaks aggregate::limit_zero_selects_no_events,
    EventLimitIsCast breaks aggregate::limit_may_be_any_usize,
    GtIsIgnoredWithLte breaks aggregate::options_of_a_range_go_together,
    GtOverflows breaks aggregate::bounds_are_any_bigint,
    SameEventIsAccepted breaks aggregate::a_taken_version_is_refused,
    DuplicateInBatchIsDropped breaks aggregate::a_version_twice_in_a_batch_is_refused,
    VersionIsNotNamed breaks aggregate::a_conflict_names_the_version,
    BatchIsWrittenUpToTheConflict breaks aggregate::a_refused_batch_records_nothing,
    ConflictOverwrites breaks aggregate::a_conflict_leaves_what_is_recorded,
    ConflictStopsInsertions breaks aggregate::a_conflict_leaves_the_recorder_usable,
    ClosedStillSelects breaks aggregate::a_closed_recorder_says_so,
    ClosingAgainFails breaks aggregate::closing_twice_is_fine,
    LastEventIsLostOnClose breaks aggregate::events_outlive_the_recorder,
    OtherRecorderIsStale breaks aggregate::another_recorder_reads_the_events,

    EventPagesSkip breaks event_streams::pages_of_events_join,
    GtIsIgnoredInPagesOfTwo breaks event_streams::bounds_hold_across_pages_of_events,
    LaterPageOfTwoIsLonger breaks event_streams::the_limit_ends_a_stream_of_events,
    ClosedHasEmptyPagesOfEvents breaks event_streams::a_stream_of_events_ends_with_an_error,
    DroppedPageOfEventsStopsInsertions breaks event_streams::dropped_streams_of_events_do_no_harm,
    PagesAreCountedFromTheEnd breaks event_streams::events_recorded_between_pages_do_no_harm,

    UpdateIsLost breaks concurrency::racing_writers_lose_no_event,
    BatchOfTwoIsSplit breaks concurrency::readers_see_whole_batches,
    HalfIsWrittenWhenDropped breaks concurrency::a_dropped_insertion_is_whole_or_nothing,
    DroppedReadStopsInsertions breaks concurrency::dropped_futures_do_no_harm,
    ClosingLosesWhatWasAccepted breaks concurrency::closing_finishes_what_was_accepted,

    IdsComeBackReversed breaks application::ids_come_back_in_the_order_of_events,
    IdsBeginAtZero breaks application::ids_are_positive,
    IdOfOneEventIsStale breaks application::ids_increase,
    IdsHaveGaps breaks application::ids_of_a_batch_are_contiguous,
    NotificationsAreInOrderOfAggregates breaks application::notifications_are_in_order,
    StartIsExclusive breaks application::start_takes_in_its_bound,
    AfterIsInclusive breaks application::after_leaves_out_its_bound,
    StopIsExclusive breaks application::stop_takes_in_its_bound,
    LimitIsIgnored breaks application::limit_ends_a_page,
    LimitZeroIsNone breaks application::limit_zero_selects_no_notifications,
    LimitIsCast breaks application::a_page_may_be_of_any_usize,
    TopicIsIgnored breaks application::a_topic_selects_its_events,
    OnlyFirstTopicCounts breaks application::several_topics_select_their_events,
    UnusedTopicIsIgnored breaks application::an_unused_topic_selects_nothing,
    StopIsIgnoredWithTopics breaks application::options_of_a_selection_go_together,
    StartIsClamped breaks application::starting_beyond_the_end_selects_nothing,
    BoundsAreSwapped breaks application::stopping_before_the_start_selects_nothing,
    AfterOverflows breaks application::bounds_of_a_selection_are_any_bigint,
    EmptyHasHighestIdZero breaks application::an_empty_recorder_has_no_highest_id,
    HighestIdIsTheFirstOfItsBatch breaks application::the_highest_id_is_that_of_the_last_event,
    RefusedEventsSurface breaks application::refused_events_never_surface,
    ClosedStillKnowsTheHighestId breaks application::a_closed_recorder_has_no_notifications,
    OrderBeginsAnewWhenReopened breaks application::the_order_outlives_the_recorder,
    OtherRecorderHasAStaleHighestId breaks application::another_recorder_reads_the_notifications,
    LateNotificationIsSkipped breaks application::tailing_readers_miss_nothing,
    BatchOfThreeIsSplit breaks application::batches_are_not_interleaved,

    NotificationPagesSkip breaks notification_streams::pages_of_notifications_join,
    TopicsAreIgnoredInPagesOfThree breaks notification_streams::options_hold_across_pages_of_notifications,
    PageOfFourIsLonger breaks notification_streams::the_limit_ends_a_stream_of_notifications,
    GapsShortenPages breaks notification_streams::gaps_do_not_end_a_stream,
    ClosedHasEmptyPages breaks notification_streams::a_stream_of_notifications_ends_with_an_error,
    DroppedPageOfEightStopsInsertions breaks
        notification_streams::dropped_streams_of_notifications_do_no_harm,
    PagesOfSixEndAtASnapshot breaks
        notification_streams::notifications_recorded_between_pages_are_streamed,

    AfterIsInclusiveForPagesOf21 breaks subscriptions::a_subscription_begins_after_its_position,
    BeyondTheEndIsTheBeginning breaks subscriptions::a_subscription_beyond_the_end_fails,
    LateNotificationIsNotFollowed breaks subscriptions::nothing_is_missed_while_others_write,
    LateNotificationOfATopicIsNotFollowed breaks
        subscriptions::nothing_of_a_topic_is_missed_while_others_write,
    LimitCountsOtherTopics breaks subscriptions::topics_are_followed_page_by_page,
    HighestIdLeavesOutATopic breaks subscriptions::the_position_moves_past_other_topics,
    PageOfTenIsLonger breaks subscriptions::a_lagging_subscription_catches_up,
    DroppedPageOfNineIsLost breaks subscriptions::a_dropped_subscription_is_resumed,
    ClosingForgetsFollowers breaks subscriptions::closing_ends_a_waiting_subscription,
    ClosingIsToldLate breaks subscriptions::closing_ends_a_busy_subscription_in_order,

    BatchOfFiveWakesNobody breaks wakes::a_commit_wakes_who_listens,
    OnlyFirstTopicWakes breaks wakes::every_topic_of_a_commit_wakes,
    LateListenersAreNotWoken breaks wakes::every_listener_is_woken,
    WakeUpComesBeforeTheCommit breaks wakes::a_wake_up_comes_after_the_commit,
    DroppedInsertionWakesNobody breaks wakes::what_a_dropped_insertion_records_wakes,
    OthersAreNotNoticedAtFirst breaks wakes::others_commits_wake,
    OthersAreNoticedOnce breaks wakes::others_commits_wake_later_listeners,

    AnyPositionIsEverybodys breaks tracking::there_is_no_position_at_first,
    NoPositionMeansZero breaks tracking::nothing_is_processed_at_first,
    ThirdPositionIsIgnored breaks tracking::positions_move_forward,
    OnlyThePositionIsProcessed breaks tracking::what_is_up_to_the_position_is_processed,
    LoneRecorderAcceptsEqual breaks tracking::an_equal_position_is_refused,
    OneBeforeIsAccepted breaks tracking::a_smaller_position_is_refused,
    FirstIsNotLookedAt breaks tracking::a_position_that_accounts_for_processed_notifications_is_refused,
    PositionIsNotNamed breaks tracking::a_conflict_names_the_position,
    RefusedPositionIsRecorded breaks tracking::a_refused_position_changes_nothing,
    ApplicationsShareOnePosition breaks tracking::applications_are_tracked_apart,
    NamesIgnoreCase breaks tracking::names_are_compared_exactly,
    NamesMustBeAscii breaks tracking::names_are_unicode,
    ReservedNameHasAPosition breaks tracking::the_reserved_name_has_no_position,
    NegativePositionsFail breaks tracking::positions_are_any_bigint,
    GapsBehindTheExpectedPositionAreRefused breaks tracking::a_position_follows_the_expected_one,
    EarlierExpectationIsAccepted breaks tracking::a_position_that_expects_an_earlier_one_is_refused,
    LaterExpectationIsAConflict breaks tracking::a_position_that_expects_a_later_one_is_refused,
    RacingConsumersBothWin breaks tracking::one_consumer_wins_a_position,
    LatePositionOverwrites breaks tracking::positions_never_go_back,
    ThirdApplicationIsRefused breaks tracking::applications_do_not_hinder_each_other,
    ClosedStillKnowsPositions breaks tracking::a_closed_recorder_tracks_nothing,
    PositionIsLostOnClose breaks tracking::positions_outlive_the_recorder,

    PositionIsToldLate breaks waiting::what_is_processed_is_not_waited_for,
    PositionWakesNobody breaks waiting::a_recorded_position_wakes_who_listens,
    NewPositionIsUnreadable breaks waiting::a_recorded_position_ends_waiting,
    OnlyItsPositionEndsWaiting breaks waiting::a_later_position_ends_waiting,
    AnyApplicationEndsWaiting breaks waiting::another_application_does_not_end_waiting,
    UnknownApplicationFails breaks waiting::waiting_times_out,
    LateWaitersAreNotWoken breaks waiting::everybody_who_waits_is_woken,
    ClosingForgetsPositions breaks waiting::closing_ends_waiting,
    DroppedWaitingStopsTracking breaks waiting::dropped_waiting_does_no_harm,
    OthersPositionsWakeNobody breaks waiting::others_positions_wake,

    PositionIsForgottenWithEvents breaks process::events_and_position_are_recorded_together,
    NoIdsWithTracking breaks process::ids_come_back_with_tracking,
    PositionWithoutEventsIsForgotten breaks process::a_position_needs_no_events,
    EventsAloneMoveThePosition breaks process::events_alone_move_no_position,
    EventsBeforePosition breaks process::a_refused_position_records_no_events,
    PositionBeforeEvents breaks process::refused_events_record_no_position,
    ConflictIsNotNamedWithTracking breaks process::a_conflict_names_what_collided,
    VersionIsToldBeforePosition breaks process::a_lost_position_is_told_first,
    ExpectedPositionIsIgnoredWithEvents breaks process::events_follow_the_expected_position,
    EventsOfAPositionFarBeyondAreRecorded breaks process::expected_positions_hold_at_once,
    RacingConsumersBothProcess breaks process::one_consumer_processes_a_notification,
    PositionIsWrittenWhenDropped breaks process::dropped_processing_is_whole_or_nothing,
    ProcessingWakesNoFollower breaks process::processing_wakes_who_follows,
    ProcessingWakesNoWaiter breaks process::processing_wakes_who_waits,
    PositionEndsWithTheLog breaks process::a_position_beyond_the_log_is_noticed,
    ClosedStillProcesses breaks process::a_closed_recorder_processes_nothing,
}

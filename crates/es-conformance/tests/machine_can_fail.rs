//! The state machines detect recorders with a defect, and accept those without.

#![expect(clippy::expect_used, reason = "these are tests")]

#[allow(dead_code, reason = "which rule a defect breaks is another test's matter")]
mod broken;

use std::{thread, time::Duration};

use broken::{BrokenFixture, BrokenRecorder, Defect};
use es_conformance::{
    Fixture,
    machine::{Recorders, disagrees},
};
use es_core::{AggregateRecorder, EventRange, PersistenceError, Recorder, StoredEvent, uuid::Uuid};
use es_popo::{PopoAggregateRecorder, PopoProcessRecorder};

/// Recorders with a defect, and others for snapshots without.
struct BrokenDatastore {
    events: BrokenFixture,
    snapshots: BrokenFixture,
}

/// Gives no ids.
#[derive(Debug)]
struct Snapshots(BrokenRecorder);

impl Fixture for BrokenDatastore {
    type Recorder = Recorders;

    async fn open(&self) -> Recorders {
        Recorders::of(self.events.open().await, Snapshots(self.snapshots.open().await))
    }

    /// Some defects make a subscriber wait until the timeout.
    fn patience(&self) -> Duration {
        Duration::from_secs(3)
    }
}

impl Recorder for Snapshots {
    async fn close(&self) -> Result<(), PersistenceError> {
        self.0.close().await
    }
}

impl AggregateRecorder for Snapshots {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        self.0.insert_events(events).await.map(|_| Vec::new())
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.0.select_events(originator_id, range).await
    }
}

fn is_noticed(defect: Option<Defect>) -> bool {
    let oracle = || Recorders::of(PopoProcessRecorder::new(), PopoAggregateRecorder::new());
    disagrees(64, oracle, async || BrokenDatastore {
        events: BrokenFixture::new(defect),
        snapshots: BrokenFixture::new(None),
    })
}

#[test]
fn the_machines_agree_with_a_recorder_without_defect() {
    assert!(!is_noticed(None));
}

/// The defects that random operations detect within a few cases. Others need one page size, one name or a
/// race.
const DEFECTS: &[Defect] = &[
    Defect::EmptyBatchFails,
    Defect::UnknownAggregateFails,
    Defect::TopicsAreAscii,
    Defect::EmptyStateBecomesNull,
    Defect::StateEndsAtNul,
    Defect::StateIsCutOff,
    Defect::NilIsRefused,
    Defect::SimilarIdsAreOne,
    Defect::LastRunOfAnAggregateWins,
    Defect::EventsAreInOrderOfInsertion,
    Defect::NegativeVersionsFail,
    Defect::DescIsIgnored,
    Defect::EventLimitIsCast,
    Defect::DuplicateInBatchIsDropped,
    Defect::VersionIsNotNamed,
    Defect::BatchIsWrittenUpToTheConflict,
    Defect::ConflictOverwrites,
    Defect::ConflictStopsInsertions,
    Defect::ClosedStillSelects,
    Defect::ClosingAgainFails,
    Defect::ClosingClosesOthers,
    Defect::LastEventIsLostOnClose,
    Defect::OtherRecorderIsStale,
    Defect::ClosedHasEmptyPagesOfEvents,
    Defect::UpdateIsLost,
    Defect::BatchOfTwoIsSplit,
    Defect::IdsComeBackReversed,
    Defect::IdsBeginAtZero,
    Defect::IdOfOneEventIsStale,
    Defect::NotificationsAreInOrderOfAggregates,
    Defect::LimitIsIgnored,
    Defect::LimitIsCast,
    Defect::UnusedTopicIsIgnored,
    Defect::StopIsIgnoredWithTopics,
    Defect::StartIsClamped,
    Defect::BoundsAreSwapped,
    Defect::EmptyHasHighestIdZero,
    Defect::HighestIdIsTheFirstOfItsBatch,
    Defect::RefusedEventsAreVisible,
    Defect::ClosedStillKnowsTheHighestId,
    Defect::OrderBeginsAnewWhenReopened,
    Defect::OtherRecorderHasAStaleHighestId,
    Defect::BatchOfThreeIsSplit,
    Defect::GapsShortenPages,
    Defect::OnlyFirstTopicNotifies,
    Defect::FirstCommitOfOthersIsMissed,
    Defect::ApplicationNamesAreIgnored,
    Defect::NoPositionMeansZero,
    Defect::OneBeforeIsAccepted,
    Defect::PositionIsNotNamed,
    Defect::RefusedPositionIsRecorded,
    Defect::NamesIgnoreCase,
    Defect::NamesMustBeAscii,
    Defect::NegativePositionsFail,
    Defect::ClosedStillKnowsPositions,
    Defect::PositionIsLostOnClose,
    Defect::ClosingForgetsPositions,
    Defect::PositionsOfOthersDoNotNotify,
    Defect::PositionIsForgottenWithEvents,
    Defect::NoIdsWithTracking,
    Defect::PositionWithoutEventsIsForgotten,
    Defect::EventsBeforePosition,
    Defect::PositionBeforeEvents,
    Defect::ConflictIsNotNamedWithTracking,
    Defect::VersionConflictTakesPrecedence,
    Defect::RacingConsumersBothProcess,
    Defect::ProcessingDoesNotNotifySubscribers,
    Defect::ProcessingDoesNotNotifyWaiters,
    Defect::ClosedStillProcesses,
];

#[test]
fn the_machines_disagree_with_defects() {
    let unnoticed: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> =
            DEFECTS.iter().map(|defect| (defect, scope.spawn(|| is_noticed(Some(*defect))))).collect();
        let join = |(defect, run): (&Defect, thread::ScopedJoinHandle<'_, bool>)| {
            (!run.join().expect("a run should finish")).then_some(*defect)
        };
        runs.into_iter().filter_map(join).collect()
    });
    assert_eq!(unnoticed, []);
}

//! What the broken recorder reads.

use std::sync::atomic::Ordering;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, StoredEvent, Topic, Tracking, TrackingRecorder, uuid::Uuid,
};

use super::{BrokenRecorder, Defect, closed, or_when_dropped};

/// The limit that rules about one option of a selection use, so that a defect in that option shows
/// nowhere else.
const ORDINARY_LIMIT: usize = 100;

impl BrokenRecorder {
    pub(super) async fn read_events(
        &self,
        id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.check_open(Defect::ClosedStillSelects)?;
        let selected = self.popo().select_events(id, self.broken_range(range)?);
        let mut events = if self.has(Defect::DroppedReadStopsInsertions) {
            or_when_dropped(selected, || self.notes().insertions_fail = true).await?
        } else {
            selected.await?
        };
        for event in &mut events {
            if let Some(late) = self.notes().overwritten.get(&(id, event.originator_version)) {
                *event = late.clone();
            }
        }
        self.break_events(id, range, &mut events).await?;
        Ok(events)
    }

    fn broken_range(&self, range: EventRange) -> Result<EventRange, PersistenceError> {
        let EventRange { gt, lte, desc, limit } = range;
        match (self.defect, gt, lte, desc, limit) {
            (Some(Defect::GtIsInclusive), Some(gt), None, false, None) => Ok(range.gt(gt.saturating_sub(1))),
            (Some(Defect::GtOverflows), Some(i64::MAX), ..) => Ok(range.gt(i64::MIN)),
            (Some(Defect::LteIsExclusive), None, Some(lte), false, None) => {
                Ok(range.lte(lte.saturating_sub(1)))
            }
            (Some(Defect::DescIsIgnored), None, None, true, None) => Ok(EventRange::all()),
            (Some(Defect::EventLimitIsIgnored), None, None, false, Some(1..)) => Ok(EventRange::all()),
            (Some(Defect::EventLimitZeroIsNone), None, None, false, Some(0)) => Ok(EventRange::all()),
            (Some(Defect::EventLimitIsCast), .., Some(limit)) if i64::try_from(limit).is_err() => {
                Err(PersistenceError::programming("a limit must not be negative"))
            }
            (Some(Defect::GtIsIgnoredWithLte), Some(_), Some(_), ..) => Ok(EventRange { gt: None, ..range }),
            (Some(Defect::EventPagesSkip), Some(gt @ 101..), _, _, Some(_)) => Ok(range.gt(gt + 1)),
            _ => Ok(range),
        }
    }

    async fn break_events(
        &self,
        id: Uuid,
        range: EventRange,
        events: &mut Vec<StoredEvent>,
    ) -> Result<(), PersistenceError> {
        let everything = range == EventRange::all();
        match self.defect {
            Some(Defect::UnknownAggregateFails) if everything && events.is_empty() => {
                return Err(PersistenceError::data("there is no such aggregate"));
            }
            Some(Defect::SimilarIdsAreOne) => {
                let similar = Uuid::from_u128(id.as_u128() ^ 1);
                events.extend(self.popo().select_events(similar, range).await?);
            }
            Some(Defect::EventsAreInOrderOfInsertion) if everything => {
                let all = self.popo().select_notifications(NotificationSelection::new(usize::MAX)).await?;
                *events = all.into_iter().map(|each| each.event).collect();
                events.retain(|event| event.originator_id == id);
            }
            Some(Defect::LastEventIsLostOnClose) if self.reopened && events.len() == 2 => events.truncate(1),
            Some(Defect::OtherRecorderIsStale)
                if everything && self.number > 0 && !self.reopened && events.len() == 3 =>
            {
                events.truncate(2);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) async fn read_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        if self.is_closed() {
            return Err(closed());
        }
        let mut all = self.popo().select_notifications(NotificationSelection::new(usize::MAX)).await?;
        for notification in &mut all {
            notification.id = self.broken_id(notification.id);
        }
        all.extend(self.notes().phantoms.iter().cloned());
        let selection = self.broken_selection(selection, &all)?;
        self.skip_late(&selection, &mut all);
        if self.has(Defect::NotificationsAreInOrderOfAggregates)
            && selection.start.is_none()
            && selection.limit >= 1_000
        {
            all.sort_by_key(|each| (each.event.originator_id, each.event.originator_version));
        }
        all.retain(|each| {
            let has_topic = selection.topics.is_empty() || selection.topics.contains(&each.event.topic);
            has_topic && selection.holds(each.id)
        });
        all.truncate(selection.limit);
        Ok(all)
    }

    pub(super) fn broken_id(&self, id: i64) -> i64 {
        match self.defect {
            Some(Defect::IdsBeginAtZero) => id - 1,
            Some(Defect::IdsHaveGaps) => 2 * id,
            Some(Defect::OrderBeginsAnewWhenReopened) if self.reopened => id + 100,
            _ => id,
        }
    }

    fn broken_selection(
        &self,
        mut selection: NotificationSelection,
        all: &[Notification],
    ) -> Result<NotificationSelection, PersistenceError> {
        let NotificationSelection { start, inclusive_of_start, stop, limit, .. } = selection;
        let whole = start.is_none() && stop.is_none();
        let all_topics = selection.topics.is_empty();
        let ordinary = limit == ORDINARY_LIMIT;
        let is_used = |topic: &Topic| all.iter().any(|each| &each.event.topic == topic);
        match (self.defect, start, stop) {
            (Some(Defect::StartIsExclusive), Some(_), None) if all_topics && ordinary => {
                selection.inclusive_of_start = false;
            }
            (Some(Defect::AfterIsInclusive), Some(_), None) if all_topics && ordinary => {
                selection.inclusive_of_start = true;
            }
            (Some(Defect::StopIsExclusive), None, Some(stop)) if all_topics && ordinary => {
                selection = selection.stop(stop.saturating_sub(1));
            }
            (Some(Defect::LimitIsIgnored), None, None) if all_topics && limit > 0 => {
                selection.limit = usize::MAX;
            }
            (Some(Defect::LimitZeroIsNone), None, None) if all_topics && limit == 0 => {
                selection.limit = usize::MAX;
            }
            (Some(Defect::LimitIsCast), ..) if i64::try_from(limit).is_err() => {
                return Err(PersistenceError::programming("a limit must not be negative"));
            }
            (Some(Defect::TopicIsIgnored), ..) if whole && ordinary && selection.topics.len() == 1 => {
                selection.topics.retain(|topic| !is_used(topic));
            }
            (Some(Defect::OnlyFirstTopicCounts), ..) if whole && ordinary => selection.topics.truncate(1),
            (Some(Defect::UnusedTopicIsIgnored), ..) => selection.topics.retain(is_used),
            (Some(Defect::StopIsIgnoredWithTopics), ..) if !all_topics => selection.stop = None,
            (Some(Defect::StartIsClamped), Some(start @ ..1_000_000), None) if inclusive_of_start => {
                selection.start = Some(start.min(all.last().map_or(start, |last| last.id)));
            }
            (Some(Defect::BoundsAreSwapped), Some(start), Some(stop)) if stop < start => {
                selection = selection.start(stop).stop(start);
            }
            (Some(Defect::AfterOverflows), Some(i64::MAX), None) if !inclusive_of_start => {
                selection.start = None;
            }
            (Some(Defect::NotificationPagesSkip), Some(start), None) if limit == 7 => {
                selection = selection.after(start.saturating_add(1));
            }
            _ => {}
        }
        Ok(selection)
    }

    /// A transaction that commits late: the first reader that comes past its notification does not
    /// see it yet.
    fn skip_late(&self, selection: &NotificationSelection, all: &mut Vec<Notification>) {
        const LATE: i64 = 300;
        let is_page = selection.limit < ORDINARY_LIMIT && selection.holds(LATE);
        if !self.has(Defect::LateNotificationIsSkipped) || !is_page || self.notes().skipped {
            return;
        }
        all.retain(|each| each.id != LATE);
        let page = all.iter().filter(|each| selection.holds(each.id)).take(selection.limit);
        self.notes().skipped = page.last().is_some_and(|last| last.id > LATE);
    }

    pub(super) async fn read_highest_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.check_open(Defect::ClosedStillKnowsTheHighestId)?;
        let highest = self.popo().max_notification_id().await?.map(|id| self.broken_id(id));
        Ok(match (self.defect, highest) {
            (Some(Defect::EmptyHasHighestIdZero), None) => Some(0),
            (Some(Defect::HighestIdIsTheFirstOfItsBatch), Some(id)) => Some(id + 1 - self.notes().last_batch),
            (Some(Defect::OtherRecorderHasAStaleHighestId), Some(id)) if self.number > 0 => Some(id - 1),
            (_, highest) => highest,
        })
    }

    pub(super) async fn read_position(&self, name: &str) -> Result<Option<i64>, PersistenceError> {
        if self.is_closed() {
            return Err(closed());
        }
        let position = self.popo().max_tracking_id(&self.broken_name(name)?).await?;
        let notes = self.notes();
        Ok(match (self.defect, position) {
            (Some(Defect::AnyPositionIsEverybodys), None)
                if name != Tracking::RESERVED_NAME && notes.tracked.len() == 1 =>
            {
                notes.tracked.values().flatten().max().copied()
            }
            (Some(Defect::ThirdPositionIsIgnored), Some(_)) => {
                let positive =
                    notes.tracked.get(name).into_iter().flatten().filter(|position| **position > 0);
                positive.take(2).last().copied().or(position)
            }
            (Some(Defect::ReservedNameHasAPosition), None) if name == Tracking::RESERVED_NAME => Some(1),
            (Some(Defect::RefusedPositionIsRecorded), Some(_)) => {
                notes.refused.get(name).copied().or(position)
            }
            (Some(Defect::PositionIsLostOnClose), Some(_))
                if self.reopened && notes.tracked.contains_key(name) =>
            {
                None
            }
            (_, position) => position,
        })
    }

    pub(super) async fn read_processed(&self, name: &str, id: i64) -> Result<bool, PersistenceError> {
        self.check_open(Defect::ClosedStillKnowsPositions)?;
        let position = self.popo().max_tracking_id(&self.broken_name(name)?).await?;
        Ok(match (self.defect, position) {
            (Some(Defect::NoPositionMeansProcessed), None) => true,
            (Some(Defect::OnlyThePositionIsProcessed), Some(position)) => position == id,
            (_, position) => position.is_some_and(|position| position >= id),
        })
    }

    pub(super) fn broken_name(&self, name: &str) -> Result<String, PersistenceError> {
        match self.defect {
            Some(Defect::NamesIgnoreCase) => Ok(name.to_lowercase()),
            Some(Defect::NamesMustBeAscii) if !name.is_ascii() => {
                Err(PersistenceError::data("the name must be of ASCII characters"))
            }
            _ => Ok(name.to_owned()),
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.datastore.recorders.load(Ordering::Relaxed) == 1
    }
}

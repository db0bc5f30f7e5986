//! Reads of the broken recorder.

use std::sync::atomic::Ordering;

use es_core::{
    AggregateRecorder, ApplicationRecorder, EventRange, NotificationSelection, PersistenceError, StoredEvent,
    Tracking, TrackingRecorder, uuid::Uuid,
};

use super::{BrokenRecorder, Defect, closed, now, or_when_dropped};

impl BrokenRecorder {
    pub(super) async fn read_events(
        &self,
        id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.check_open_to_select(range)?;
        if self.is_closed() && self.has(Defect::ClosedHasEmptyPagesOfEvents) {
            return Ok(Vec::new());
        }
        let selected = self.popo().select_events(id, self.broken_range(range)?);
        let stops_insertions = match self.defect {
            Some(Defect::DroppedReadStopsInsertions) => range.limit.is_none(),
            Some(Defect::DroppedPageOfEventsStopsInsertions) => range.limit.is_some(),
            _ => false,
        };
        let mut events = if stops_insertions {
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

    fn check_open_to_select(&self, range: EventRange) -> Result<(), PersistenceError> {
        let is_page = range.limit.is_some();
        match self.defect {
            Some(Defect::ClosedStillSelects) if !is_page => Ok(()),
            Some(Defect::ClosedHasEmptyPagesOfEvents) if is_page => Ok(()),
            _ if self.is_closed() => Err(closed()),
            Some(Defect::ClosingClosesOthers)
                if !self.reopened && self.datastore.closings.load(Ordering::Relaxed) > 0 =>
            {
                Err(closed())
            }
            _ => Ok(()),
        }
    }

    fn broken_range(&self, range: EventRange) -> Result<EventRange, PersistenceError> {
        let EventRange { gt, lte, desc, limit, .. } = range;
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
            (Some(Defect::GtIsIgnoredWithLte), Some(_), Some(_), _, None | Some(4..=8 | 100)) => {
                Ok(EventRange { gt: None, ..range })
            }
            (Some(Defect::GtIsIgnoredInPagesOfTwo), Some(_), Some(_), true, Some(2)) => {
                Ok(EventRange { gt: None, ..range })
            }
            (Some(Defect::LaterPageOfTwoIsLonger), Some(5..), None, false, Some(2)) => Ok(range.limit(3)),
            (Some(Defect::PagesAreCountedFromTheEnd), _, Some(lte), true, Some(2)) => {
                Ok(range.lte(lte + self.grown_since_first_page()))
            }
            (Some(Defect::EventPagesSkip), Some(gt @ 101..), _, _, Some(_)) => Ok(range.gt(gt + 1)),
            _ => Ok(range),
        }
    }

    fn grown_since_first_page(&self) -> i64 {
        let highest = now(self.popo().max_notification_id()).ok().flatten();
        // Once: streams that get the same page again and again never end.
        let first_page = self.notes().snapshot.take().or(highest);
        highest.unwrap_or(0) - first_page.unwrap_or(0)
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
            Some(Defect::PagesAreCountedFromTheEnd)
                if EventRange { max_bytes: None, ..range } == EventRange::all().desc().limit(2) =>
            {
                self.notes().snapshot = now(self.popo().max_notification_id())?;
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

    pub(super) async fn read_position(&self, name: &str) -> Result<Option<i64>, PersistenceError> {
        if self.is_closed() {
            return Err(closed());
        }
        let position = self.popo().max_tracking_id(&self.broken_name(name)?).await?;
        let notes = self.notes();
        Ok(match (self.defect, position) {
            (Some(Defect::ApplicationNamesAreIgnored), None)
                if name != Tracking::RESERVED_NAME && notes.tracked.len() == 1 =>
            {
                notes.tracked.values().flatten().max().copied()
            }
            (Some(Defect::ThirdPositionIsIgnored), Some(_)) if name == "upstream" => {
                let positive =
                    notes.tracked.get(name).into_iter().flatten().filter(|position| **position > 0);
                positive.take(2).last().copied().or(position)
            }
            (Some(Defect::ReservedNameHasAPosition), None) if name == Tracking::RESERVED_NAME => Some(1),
            (Some(Defect::PositionEndsWithTheLog), Some(position)) if name == "restored" => {
                let highest = now(self.popo().max_notification_id())?;
                Some(if highest.is_some_and(|highest| position == highest + 20) { 1 } else { position })
            }
            (Some(Defect::RefusedPositionIsRecorded), Some(_)) if name == "upstream" => {
                notes.refused.get(name).copied().or(position)
            }
            (Some(Defect::LatePositionOverwrites), Some(_)) if name == "racing" => {
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
        let known_name = self.broken_name(name)?;
        let position = self.popo().max_tracking_id(&known_name);
        let position = if self.has(Defect::DroppedWaitingStopsTracking) && id == 70 {
            or_when_dropped(position, || self.notes().tracking_fails = true).await?
        } else {
            position.await?
        };
        Ok(match (self.defect, position) {
            (Some(Defect::NoPositionMeansZero), None) => id <= 0,
            (Some(Defect::OnlyThePositionIsProcessed), Some(7)) => id == 7,
            (Some(Defect::OnlyItsPositionEndsWaiting), Some(30)) => id == 30,
            (Some(Defect::PositionIsReadableLate), Some(20)) => {
                std::mem::replace(&mut self.notes().was_read, true)
            }
            (Some(Defect::NewPositionIsUnreadable), Some(45)) => {
                return Err(PersistenceError::operational("the position cannot be read"));
            }
            (Some(Defect::AnyApplicationEndsWaiting), _) if id == 23 => {
                self.notes().tracked.values().flatten().any(|position| *position >= id)
            }
            (Some(Defect::UnknownApplicationFails), None) if id == 40 => {
                return Err(PersistenceError::programming("there is no such application"));
            }
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

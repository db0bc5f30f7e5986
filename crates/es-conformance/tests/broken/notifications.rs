//! Reads of the total order of the broken recorder.

use es_core::{ApplicationRecorder, Notification, NotificationSelection, PersistenceError, Topic};

use super::{BrokenRecorder, Defect, closed, or_when_dropped};

/// The limit that rules about one option of a selection use, so that a defect in that option shows
/// nowhere else.
const ORDINARY_LIMIT: usize = 100;

impl BrokenRecorder {
    pub(super) async fn read_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        if self.is_closed() {
            let is_later_page = selection.start.is_some() && !selection.inclusive_of_start;
            let is_refused = !(self.has(Defect::ClosedHasEmptyPages) && is_later_page);
            return if is_refused { Err(closed()) } else { Ok(Vec::new()) };
        }
        self.notes().reads += 1;
        let mut all = self.popo().select_notifications(NotificationSelection::new(usize::MAX)).await?;
        for notification in &mut all {
            notification.id = self.broken_id(notification.id);
        }
        all.extend(self.notes().phantoms.iter().cloned());
        let selection = self.broken_selection(selection, &all)?;
        self.skip_late(&selection, &mut all);
        self.break_page(&selection, &mut all).await;
        if self.has(Defect::NotificationsAreInOrderOfAggregates)
            && selection.start.is_none()
            && selection.limit >= 1_000
        {
            all.sort_by_key(|each| (each.event.originator_id, each.event.originator_version));
        }
        if self.has(Defect::LimitCountsOtherTopics) && selection.limit == 15 {
            all.retain(|each| selection.contains(each.id));
            all.truncate(15);
        }
        all.retain(|each| {
            let has_topic = selection.topics.is_empty() || selection.topics.contains(&each.event.topic);
            has_topic && selection.contains(each.id)
        });
        all.truncate(selection.limit);
        Ok(all)
    }

    async fn break_page(&self, selection: &NotificationSelection, all: &mut Vec<Notification>) {
        let before = selection.start.unwrap_or(0);
        match (self.defect, selection.limit) {
            (Some(Defect::DroppedPageOfEightStopsInsertions), 8) => {
                or_when_dropped(async {}, || self.notes().insertions_fail = true).await;
            }
            (Some(Defect::DroppedPageOfNineIsLost), 9) => {
                let dropped = self.notes().snapshot;
                all.retain(|each| dropped.is_none_or(|dropped| each.id != dropped + 1));
                or_when_dropped(async {}, || self.notes().snapshot = selection.start).await;
            }
            (Some(Defect::PagesOfSixEndAtASnapshot), 6) => {
                let end = *self.notes().snapshot.get_or_insert(all.last().map_or(0, |last| last.id));
                all.retain(|each| each.id <= end);
            }
            (Some(Defect::GapsShortenPages), limit) if self.notes().gap.is_some() => {
                let last = before.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
                all.retain(|each| (before..=last).contains(&each.id));
            }
            _ => {}
        }
    }

    pub(super) fn broken_id(&self, id: i64) -> i64 {
        match self.defect {
            Some(Defect::IdsBeginAtZero) if self.notes().first_batch == Some(3) => id - 1,
            Some(Defect::GapsShortenPages) if self.notes().gap.is_some_and(|gap| id > gap) => id + 1,
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
            (Some(Defect::StopIsIgnoredWithTopics), ..)
                if !all_topics && inclusive_of_start && limit > 11 =>
            {
                selection.stop = None;
            }
            (Some(Defect::TopicsAreIgnoredInPagesOfThree), ..) if limit == 3 && !inclusive_of_start => {
                selection.topics.clear();
            }
            (Some(Defect::PageOfFourIsLonger), Some(_), _) if limit == 4 => selection.limit = 5,
            (Some(Defect::PageOfTenIsLonger), Some(_), _) if limit == 10 => selection.limit = 11,
            (Some(Defect::AfterIsInclusiveForPagesOf21), Some(_), None) if limit == 21 => {
                selection.inclusive_of_start = true;
            }
            (Some(Defect::BeyondTheEndIsTheBeginning), Some(start), _)
                if limit == 12 && all.last().is_none_or(|last| start > last.id) =>
            {
                selection.start = None;
            }
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
        let (after, is_reader) = match self.defect {
            Some(Defect::LateNotificationIsSkipped) => (300, selection.limit < ORDINARY_LIMIT),
            Some(Defect::LateNotificationIsNotFollowed) => (50, selection.limit == 13),
            Some(Defect::LateNotificationOfATopicIsNotFollowed) => {
                (50, selection.limit == 150 && !selection.topics.is_empty())
            }
            _ => return,
        };
        let is_wanted = |each: &&Notification| {
            each.id >= after && (selection.topics.is_empty() || selection.topics.contains(&each.event.topic))
        };
        let Some(late) = all.iter().find(is_wanted).map(|each| each.id) else { return };
        if !is_reader || !selection.contains(late) || self.notes().skipped {
            return;
        }
        all.retain(|each| each.id != late);
        let page = all.iter().filter(|each| selection.contains(each.id)).take(selection.limit);
        self.notes().skipped = page.last().is_some_and(|last| last.id > late);
    }

    pub(super) async fn read_highest_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.check_open(Defect::ClosedStillKnowsTheHighestId)?;
        let highest = self.popo().max_notification_id().await?.map(|id| self.broken_id(id));
        Ok(match (self.defect, highest) {
            (Some(Defect::HighestIdLeavesOutATopic), _) => {
                let all = self.popo().select_notifications(NotificationSelection::new(usize::MAX)).await?;
                let noisy = |each: &&Notification| !each.event.topic.ends_with("Noted");
                all.iter().rev().find(noisy).map(|each| each.id)
            }
            (Some(Defect::EmptyHasHighestIdZero), None) => Some(0),
            (Some(Defect::HighestIdIsTheFirstOfItsBatch), Some(id)) if self.notes().last_batch == 2 => {
                Some(id - 1)
            }
            (Some(Defect::OtherRecorderHasAStaleHighestId), Some(id)) if self.number > 0 && id < 4 => {
                Some(id - 1)
            }
            (_, highest) => highest,
        })
    }
}

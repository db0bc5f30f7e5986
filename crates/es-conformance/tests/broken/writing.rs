//! Writes of the broken recorder.

use std::collections::{BTreeSet, HashMap};

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, Conflict, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Signal, StoredEvent, Topic, Tracking, TrackingRecorder, uuid::Uuid,
};
use tokio::task::yield_now;

use super::{BrokenRecorder, Defect, closed, now, or_when_dropped, pause, unnamed};

impl AggregateRecorder for BrokenRecorder {
    async fn insert_events(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        if self.is_closed() {
            return Err(closed());
        }
        if self.notes().insertions_fail {
            return Err(PersistenceError::operational("the recorder is stuck"));
        }
        let events = self.broken_batch(events)?;
        let notifies_early = self.has(Defect::NotifiesBeforeTheCommit) && events.len() == 6;
        if notifies_early {
            self.tell_events(&events);
            self.until_somebody_reads().await;
        }
        let mut ids = match self.write(events.clone()).await {
            Ok(ids) => ids,
            Err(error) => return self.refuse(error, events),
        };
        if self.has(Defect::EventsAloneMoveThePosition) && events.len() == 5 {
            self.move_positions().await?;
        }
        if self.has(Defect::CancelledInsertDoesNotNotify) && events.len() == 14 {
            yield_now().await;
        }
        if !notifies_early {
            self.tell_events(&events);
        }
        {
            let mut notes = self.notes();
            notes.last_batch = ids.len() as i64;
            notes.first_batch.get_or_insert(ids.len());
        }
        for id in &mut ids {
            *id = self.broken_id(*id);
        }
        match self.defect {
            Some(Defect::IdsComeBackReversed) => ids.reverse(),
            Some(Defect::IdOfOneEventIsStale) if ids.len() == 1 => ids = vec![1],
            _ => {}
        }
        Ok(ids)
    }

    async fn select_events(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        self.read_events(originator_id, range).await
    }
}

impl ApplicationRecorder for BrokenRecorder {
    async fn select_notifications(
        &self,
        selection: NotificationSelection,
    ) -> Result<Vec<Notification>, PersistenceError> {
        self.read_notifications(selection).await
    }

    async fn max_notification_id(&self) -> Result<Option<i64>, PersistenceError> {
        self.read_highest_id().await
    }

    fn commit_signal(&self) -> &Signal {
        self.broken_commits()
    }
}

impl TrackingRecorder for BrokenRecorder {
    fn tracking_signal(&self) -> &Signal {
        self.broken_positions()
    }

    async fn insert_tracking(&self, tracking: Tracking) -> Result<(), PersistenceError> {
        self.track(tracking.clone()).await?;
        self.tell_position(&tracking);
        Ok(())
    }

    async fn max_tracking_id(&self, application_name: &str) -> Result<Option<i64>, PersistenceError> {
        self.read_position(application_name).await
    }

    async fn has_tracking_id(
        &self,
        application_name: &str,
        notification_id: i64,
    ) -> Result<bool, PersistenceError> {
        self.read_processed(application_name, notification_id).await
    }
}

impl ProcessRecorder for BrokenRecorder {
    async fn insert_events_with_tracking(
        &self,
        events: Vec<StoredEvent>,
        tracking: Tracking,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.check_open(Defect::ClosedStillProcesses)?;
        let (recorded_events, recorded_position) = (events.clone(), tracking.clone());
        let recorded = self.popo().max_tracking_id(tracking.application_name()).await?;
        let moves_on = recorded.is_none_or(|recorded| recorded < tracking.notification_id());
        let both = self.popo().insert_events_with_tracking(events.clone(), tracking.clone());
        let defect = self.defect_of(&tracking);
        let outcome = match (defect, events.len()) {
            (Some(Defect::PositionIsForgottenWithEvents), 2) if moves_on => {
                self.popo().insert_events(events).await
            }
            (Some(Defect::PositionWithoutEventsIsForgotten), 0) => Ok(Vec::new()),
            (Some(Defect::EventsBeforePosition), 2) if !moves_on => {
                self.popo().insert_events(events).await?;
                both.await
            }
            (Some(Defect::PositionBeforeEvents), _) if moves_on && self.collides(&events) => {
                self.popo().insert_tracking(tracking).await?;
                self.popo().insert_events(events).await
            }
            (Some(Defect::VersionConflictTakesPrecedence), _) if !moves_on && self.collides(&events) => {
                self.popo().insert_events(events).await
            }
            (Some(Defect::ExpectedPositionIsIgnoredWithEvents), _)
                if tracking.expected_position() == Some(10) =>
            {
                let tracking = Tracking::new(tracking.application_name(), tracking.notification_id())?;
                self.popo().insert_events_with_tracking(events, tracking).await
            }
            (Some(Defect::EventsOfAPositionFarBeyondAreRecorded), 1)
                if tracking.expected_position() > Some(90) =>
            {
                self.popo().insert_events(events).await
            }
            (Some(Defect::RacingConsumersBothProcess), 1) if moves_on => {
                pause().await;
                both.await.or(Ok(vec![1]))
            }
            (Some(Defect::PositionIsWrittenWhenDropped), 3) => {
                or_when_dropped(both, || drop(now(self.popo().insert_tracking(tracking)))).await
            }
            _ => both.await,
        };
        if outcome.is_ok() {
            if !self.has(Defect::ProcessingDoesNotNotifySubscribers) {
                self.tell_events(&recorded_events);
            }
            if !self.has(Defect::ProcessingDoesNotNotifyWaiters) {
                self.tell_position(&recorded_position);
            }
        }
        match (defect, outcome) {
            (Some(Defect::NoIdsWithTracking), Ok(_)) => Ok(Vec::new()),
            (Some(Defect::ConflictIsNotNamedWithTracking), Err(error)) if recorded_events.len() < 3 => {
                Err(unnamed(&error))
            }
            (_, outcome) => Ok(outcome?.into_iter().map(|id| self.broken_id(id)).collect()),
        }
    }
}

impl BrokenRecorder {
    async fn track(&self, tracking: Tracking) -> Result<(), PersistenceError> {
        if self.is_closed() {
            return Err(closed());
        }
        if self.notes().tracking_fails {
            return Err(PersistenceError::operational("the recorder is stuck"));
        }
        let (name, id) = (tracking.application_name().to_owned(), tracking.notification_id());
        let recorded = self.popo().max_tracking_id(&self.broken_name(&name)?).await?;
        let defect = self.defect_of(&tracking);
        match (defect, recorded) {
            (Some(Defect::NegativePositionsFail), _) if id < 0 => {
                return Err(PersistenceError::data("a position must not be negative"));
            }
            (Some(Defect::LoneRecorderAcceptsEqual), Some(recorded))
                if self.is_alone() && id == recorded && id == 7 =>
            {
                return Ok(());
            }
            (Some(Defect::OneBeforeIsAccepted), Some(recorded)) if Some(id) == recorded.checked_sub(1) => {
                return Ok(());
            }
            (Some(Defect::ApplicationsShareOnePosition), None)
                if name == "another"
                    && self.notes().tracked.values().flatten().any(|recorded| *recorded >= id) =>
            {
                return Err(Conflict::Tracking { application_name: name, notification_id: id }.into());
            }
            (Some(Defect::ThirdApplicationIsRefused), None)
                if name.starts_with("concurrent ") && self.notes().tracked.len() >= 2 =>
            {
                return Err(Conflict::Tracking { application_name: name, notification_id: id }.into());
            }
            (Some(Defect::LatePositionOverwrites), Some(recorded)) if name == "racing" && id < recorded => {
                self.notes().refused.insert(name, id);
                return Ok(());
            }
            (Some(Defect::RacingConsumersBothWin), recorded)
                if recorded.is_none_or(|it| it < id) && tracking.first_notification_id() == id =>
            {
                pause().await;
                return self.popo().insert_tracking(tracking).await.or(Ok(()));
            }
            _ => {}
        }
        let first =
            if defect == Some(Defect::FirstOfASpanIsIgnored) { id } else { tracking.first_notification_id() };
        let conflict = tracking.conflict();
        let expected = match (defect, tracking.expected_position(), recorded.unwrap_or(0)) {
            (Some(Defect::GapsBehindTheExpectedPositionAreRefused), Some(expected), recorded)
                if recorded == expected && first > expected + 1 =>
            {
                return Err(conflict.into());
            }
            (Some(Defect::LaterExpectationIsAConflict), Some(expected), recorded) if recorded < expected => {
                return Err(conflict.into());
            }
            (Some(Defect::EarlierExpectationIsAccepted), Some(expected), recorded) if recorded > expected => {
                None
            }
            (_, expected, _) => expected,
        };
        let tracking = Tracking::spanning(self.broken_name(&name)?, first, id)?;
        let tracking = match expected {
            Some(expected) => tracking.after(expected)?,
            None => tracking,
        };
        if let Err(error) = self.popo().insert_tracking(tracking).await {
            if expected.is_none() {
                self.notes().refused.insert(name, id);
            }
            return Err(if defect == Some(Defect::PositionIsNotNamed) { unnamed(&error) } else { error });
        }
        if expected.is_none() {
            self.notes().tracked.entry(name).or_default().push(id);
        }
        Ok(())
    }

    /// The defect, if it is about records like this one: those that expect a position have their own.
    fn defect_of(&self, tracking: &Tracking) -> Option<Defect> {
        let is_about_expected = |defect: &Defect| {
            matches!(
                defect,
                Defect::GapsBehindTheExpectedPositionAreRefused
                    | Defect::EarlierExpectationIsAccepted
                    | Defect::LaterExpectationIsAConflict
                    | Defect::ExpectedPositionIsIgnoredWithEvents
                    | Defect::EventsOfAPositionFarBeyondAreRecorded
            )
        };
        self.defect.filter(|defect| tracking.expected_position().is_none() || is_about_expected(defect))
    }

    /// The batch as the defect would have it written.
    fn broken_batch(&self, mut events: Vec<StoredEvent>) -> Result<Vec<StoredEvent>, PersistenceError> {
        match self.defect {
            Some(Defect::EmptyBatchFails) if events.is_empty() => {
                return Err(PersistenceError::programming("there is nothing to insert"));
            }
            Some(Defect::TopicsAreAscii) => map_topics(&mut events, |topic| {
                topic.chars().map(|character| if character.is_ascii() { character } else { '?' }).collect()
            }),
            Some(Defect::TopicsAreCutOff) => {
                map_topics(&mut events, |topic| topic.chars().take(255).collect());
            }
            Some(Defect::EmptyStateBecomesNull) => {
                let null = Bytes::from_static(b"null");
                map_states(&mut events, |state| if state.is_empty() { null.clone() } else { state });
            }
            Some(Defect::StateEndsAtNul) => map_states(&mut events, |state| {
                let end = state.iter().position(|byte| *byte == 0).unwrap_or(state.len());
                state.slice(..end)
            }),
            Some(Defect::StateIsCutOff) => {
                map_states(&mut events, |state| state.slice(..state.len().min(65_535)));
            }
            Some(Defect::NilIsRefused) if events.iter().any(|event| event.originator_id.is_nil()) => {
                return Err(PersistenceError::data("an aggregate needs an id"));
            }
            Some(Defect::LastRunOfAnAggregateWins) => {
                let runs = events.chunk_by(|one, next| one.originator_id == next.originator_id);
                let by_aggregate: HashMap<_, _> =
                    runs.map(|run| (run[0].originator_id, run.to_vec())).collect();
                events.retain(|event| {
                    by_aggregate.get(&event.originator_id).is_some_and(|run| run.contains(event))
                });
            }
            Some(Defect::BatchIsCutOff) => events.truncate(10_000),
            Some(Defect::NegativeVersionsFail) if events.iter().any(|event| event.originator_version < 0) => {
                return Err(PersistenceError::data("a version must not be negative"));
            }
            Some(Defect::DuplicateInBatchIsDropped) => {
                let mut seen = BTreeSet::new();
                events.retain(|event| seen.insert((event.originator_id, event.originator_version)));
            }
            Some(Defect::DuplicateInBatchIsAConflict) => {
                let mut seen = BTreeSet::new();
                let mut is_new =
                    |event: &&StoredEvent| seen.insert((event.originator_id, event.originator_version));
                if let Some(repeated) = events.iter().find(|event| !is_new(event)) {
                    return Err(repeated.conflict().into());
                }
            }
            _ => {}
        }
        Ok(events)
    }

    async fn write(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        let size = events.len();
        match self.defect {
            Some(Defect::BatchOfTwoIsSplit) if size == 2 && !self.collides(&events) => {
                self.split(events).await
            }
            Some(Defect::BatchOfThreeIsSplit) if size == 3 && !self.collides(&events) => {
                self.split(events).await
            }
            Some(Defect::UpdateIsLost) if size == 1 && !self.collides(&events) => {
                pause().await;
                self.popo().insert_events(events).await.or(Ok(vec![1]))
            }
            Some(Defect::HalfIsWrittenWhenDropped) if size == 4 => {
                let half = events[..2].to_vec();
                let whole = self.popo().insert_events(events);
                or_when_dropped(whole, || drop(now(self.popo().insert_events(half)))).await
            }
            Some(Defect::ClosingLosesAcceptedWrites) if size == 2 => {
                yield_now().await;
                if self.is_closed() { Ok(vec![1, 2]) } else { self.popo().insert_events(events).await }
            }
            _ => self.popo().insert_events(events).await,
        }
    }

    /// Yields to other tasks until one of them reads, or for 1,000 turns if none does.
    async fn until_somebody_reads(&self) {
        let before = self.notes().reads;
        for _ in 0..1_000 {
            if self.notes().reads > before {
                break;
            }
            pause().await;
        }
    }

    async fn split(&self, events: Vec<StoredEvent>) -> Result<Vec<i64>, PersistenceError> {
        let mut ids = Vec::new();
        for event in events {
            ids.extend(self.popo().insert_events(vec![event]).await?);
            pause().await;
        }
        Ok(ids)
    }

    /// Processes a batch of which a version is already recorded.
    fn refuse(
        &self,
        error: PersistenceError,
        mut events: Vec<StoredEvent>,
    ) -> Result<Vec<i64>, PersistenceError> {
        let aggregates: BTreeSet<_> = events.iter().map(|event| event.originator_id).collect();
        let several = events.len() > 1;
        match self.defect {
            Some(Defect::SameEventIsAccepted) if !several && self.is_recorded(&events[0]) => {
                return Ok(vec![1]);
            }
            Some(Defect::VersionIsNotNamed) => return Err(unnamed(&error)),
            Some(Defect::BatchIsWrittenUpToTheConflict) if aggregates.len() > 1 => {
                let written = events.iter().position(|event| self.collides(std::slice::from_ref(event)));
                events.truncate(written.unwrap_or(0));
                now(self.popo().insert_events(events))?;
            }
            Some(Defect::ConflictOverwrites) if !several && events[0].originator_version == 1 => {
                let place = (events[0].originator_id, events[0].originator_version);
                self.notes().overwritten.insert(place, events[0].clone());
            }
            Some(Defect::ConflictStopsInsertions) if several && aggregates.len() == 1 => {
                self.notes().insertions_fail = true;
            }
            Some(Defect::GapsShortenPages) => {
                let last = now(self.popo().max_notification_id())?;
                let mut notes = self.notes();
                notes.gap = notes.gap.or(last);
            }
            Some(Defect::RefusedEventsAreVisible) if !several => {
                let id = now(self.popo().max_notification_id())?.unwrap_or(0);
                self.notes().phantoms.push(Notification { id, event: events[0].clone() });
            }
            _ => {}
        }
        Err(error)
    }

    /// Moves every position that was recorded without events by one.
    async fn move_positions(&self) -> Result<(), PersistenceError> {
        let tracked = self.notes().tracked.clone();
        for (name, ids) in tracked {
            let next = ids.last().map_or(1, |id| id + 1);
            self.popo().insert_tracking(Tracking::new(name, next)?).await?;
        }
        Ok(())
    }

    fn is_recorded(&self, event: &StoredEvent) -> bool {
        let recorded = now(self.popo().select_notifications(NotificationSelection::new(usize::MAX)));
        recorded.is_ok_and(|all| all.iter().any(|each| each.event == *event))
    }

    /// Checks whether inserting would be refused.
    fn collides(&self, events: &[StoredEvent]) -> bool {
        let mut places = BTreeSet::new();
        events.iter().any(|event| {
            let version = event.originator_version;
            let range = EventRange::all().lte(version).desc().limit(1);
            let recorded = now(self.popo().select_events(event.originator_id, range)).unwrap_or_default();
            let taken = recorded.iter().any(|event| event.originator_version == version);
            taken || !places.insert((event.originator_id, version))
        })
    }
}

fn map_topics(events: &mut [StoredEvent], map: impl Fn(&str) -> String) {
    for event in events {
        event.topic = Topic::new(map(&event.topic)).expect("it is a topic");
    }
}

fn map_states(events: &mut [StoredEvent], map: impl Fn(Bytes) -> Bytes) {
    for event in events {
        event.state = map(event.state.clone());
    }
}

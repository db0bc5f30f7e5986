//! The tested datastore, the oracle, and the effects of a step on both.

use std::{fmt::Debug, mem, pin::pin, sync::Arc, time::Duration};

use es_core::{
    AggregateRecorder, AggregateRecorderExt, ApplicationRecorder, ApplicationRecorderExt,
    DynApplicationRecorder, DynTrackingRecorder, EventRange, Notification, NotificationSelection,
    PersistenceError, ProcessRecorder, Recorder, StoredEvent, Tracking, TrackingRecorder,
    TrackingRecorderExt,
};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::task::JoinSet;

use super::{
    answer::{Refusal, comparable, is_same_among_others},
    held::{Follower, Listening, Wait, subscribe},
    log::Log,
    operation::{AGGREGATES, APPLICATIONS, HANDLES, Insertion, Operation, Step, Through, resolve},
    recorders::Recorders,
};
use crate::{Fixture, support::tracking};

pub(super) struct Machine<'a, F> {
    fixture: &'a F,
    make_oracle: &'a dyn Fn() -> Recorders,
    /// The oracle, which is never closed.
    oracle: Recorders,
    /// A closed oracle, for the results of closed handles.
    closed: Recorders,
    handles: Vec<Handle>,
    /// The events of the last insertion.
    last: (Vec<StoredEvent>, Option<Tracking>),
    log: Log,
    followers: Vec<Follower>,
    waits: Vec<Wait>,
    listening: Vec<Listening>,
}

struct Handle {
    recorders: Recorders,
    is_open: bool,
}

impl Recorders {
    fn events(&self, through: Through) -> Arc<dyn DynApplicationRecorder> {
        match through {
            Through::Process => self.process.clone(),
            Through::Tier => Arc::clone(&self.application),
        }
    }

    fn positions(&self, through: Through) -> Arc<dyn DynTrackingRecorder> {
        match through {
            Through::Process => self.process.clone(),
            Through::Tier => Arc::clone(&self.tracking),
        }
    }

    async fn insert(
        &self,
        through: Through,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Result<Vec<i64>, Refusal> {
        comparable(match tracking {
            None => self.events(through).insert_events(events).await,
            Some(tracking) => self.process.insert_events_with_tracking(events, tracking).await,
        })
    }
}

impl<'a, F: Fixture<Recorder = Recorders>> Machine<'a, F> {
    pub(super) async fn new(fixture: &'a F, make_oracle: &'a dyn Fn() -> Recorders) -> Self {
        let mut handles = Vec::new();
        for _ in 0..HANDLES {
            handles.push(Handle { recorders: fixture.open().await, is_open: true });
        }
        let closed = make_oracle();
        closed.close().await.expect("the oracle should close");
        Self {
            fixture,
            make_oracle,
            oracle: make_oracle(),
            closed,
            handles,
            last: (Vec::new(), None),
            log: Log::default(),
            followers: Vec::new(),
            waits: Vec::new(),
            listening: Vec::new(),
        }
    }

    pub(super) async fn take(&mut self, step: &Step) {
        let Step { handle, through, operation } = step;
        self.perform(*handle, *through, operation).await;
        self.settle().await;
    }

    /// Compares the complete content through each handle, and closes the datastore.
    pub(super) async fn end(&mut self) {
        for handle in 0..HANDLES {
            let all = NotificationSelection::new(usize::MAX);
            self.select_notifications(handle, Through::Process, &all, &all).await;
            for id in AGGREGATES {
                let (tested, oracle) = self.both(handle);
                let range = EventRange::all();
                same(
                    tested.process.select_events(id, range).await,
                    oracle.process.select_events(id, range).await,
                );
                same(
                    tested.snapshots.select_events(id, range).await,
                    oracle.snapshots.select_events(id, range).await,
                );
            }
            for name in APPLICATIONS {
                let (tested, oracle) = self.both(handle);
                same(tested.process.max_tracking_id(name).await, oracle.process.max_tracking_id(name).await);
            }
        }
        for handle in 0..HANDLES {
            self.close(handle).await;
            self.settle().await;
        }
    }

    async fn perform(&mut self, handle: usize, through: Through, operation: &Operation) {
        let (tested, oracle) = self.both(handle);
        match operation {
            Operation::Insert(insertion) => {
                self.last = insertion.resolve(&self.oracle).await;
                self.insert(handle, through).await;
            }
            Operation::InsertAgain => self.insert(handle, through).await,
            Operation::InsertConcurrently(insertions) => self.insert_at_once(through, insertions).await,
            Operation::Track(processed) => {
                let tracking = processed.resolve(&self.oracle).await;
                same(
                    tested.positions(through).insert_tracking(tracking.clone()).await,
                    oracle.positions(through).insert_tracking(tracking).await,
                );
            }
            Operation::InsertSnapshots(events) => {
                let events = resolve(events, &self.oracle.snapshots).await;
                let inserted = comparable(tested.snapshots.insert_events(events.clone()).await);
                let expected = comparable(oracle.snapshots.insert_events(events.clone()).await);
                assert_eq!(inserted, expected);
            }
            Operation::SelectEvents(id, range) => same(
                tested.events(through).select_events(*id, *range).await,
                oracle.events(through).select_events(*id, *range).await,
            ),
            Operation::SelectSnapshots(id, range) => same(
                tested.snapshots.select_events(*id, *range).await,
                oracle.snapshots.select_events(*id, *range).await,
            ),
            Operation::StreamEvents(id, range, None) => {
                same_items(
                    tested.events(through).stream_events(*id, *range),
                    oracle.events(through).stream_events(*id, *range),
                )
                .await;
            }
            Operation::StreamEvents(id, range, Some(size)) => {
                same_items(
                    tested.events(through).stream_events_by(*size, *id, *range),
                    oracle.events(through).stream_events_by(*size, *id, *range),
                )
                .await;
            }
            Operation::SelectNotifications(selection) => {
                let (by_id, by_rank) = self.selections(&selection.by_rank(&self.log));
                self.select_notifications(handle, through, &by_id, &by_rank).await;
            }
            Operation::StreamNotifications(selection, size) => {
                let (by_id, by_rank) = self.selections(&selection.by_rank(&self.log));
                let (tested, oracle) = (tested.events(through), oracle.events(through));
                match size {
                    None => {
                        let tested = tested.stream_notifications(by_id).map(|each| self.ranked(each));
                        same_items(tested, oracle.stream_notifications(by_rank)).await;
                    }
                    Some(size) => {
                        let tested = tested.stream_notifications_by(*size, by_id);
                        let tested = tested.map(|each| self.ranked(each));
                        same_items(tested, oracle.stream_notifications_by(*size, by_rank)).await;
                    }
                }
            }
            Operation::HighestId => {
                let highest = tested.events(through).max_notification_id().await;
                let highest = highest.map(|id| id.map(|id| self.log.rank(id)));
                same(highest, oracle.events(through).max_notification_id().await);
            }
            Operation::Position(name) => same(
                tested.positions(through).max_tracking_id(name).await,
                oracle.positions(through).max_tracking_id(name).await,
            ),
            Operation::IsProcessed(name, id) => same(
                tested.positions(through).has_tracking_id(name, *id).await,
                oracle.positions(through).has_tracking_id(name, *id).await,
            ),
            Operation::VerifiedPosition(name) => {
                let upstream = oracle.events(through);
                same(
                    tested.positions(through).validated_position(name, &upstream).await,
                    oracle.positions(through).validated_position(name, &upstream).await,
                );
            }
            Operation::WaitBriefly(name, id) => same(
                tested.positions(through).wait(name, *id, Duration::ZERO).await,
                oracle.positions(through).wait(name, *id, Duration::ZERO).await,
            ),
            Operation::Wait(name, id) => {
                let wait = Wait::new(handle, tested.positions(through), name, *id);
                self.waits.push(wait);
            }
            Operation::StopWaiting(which) => drop(take(&mut self.waits, *which)),
            Operation::Subscribe(place, topics, size) => {
                let position = self.log.id(place.rank(&self.log));
                let follower = Follower::new(handle, &tested.events(through), position, topics, *size);
                self.followers.push(follower);
            }
            Operation::NextPage(which) => {
                let Some(follower) = take(&mut self.followers, *which) else { return };
                let oracle = self.oracle_of(follower.handle).events(through);
                let follower = follower.read(&oracle, &self.log).await;
                self.followers.push(follower);
            }
            Operation::Seek(which, place) => {
                let Some(mut follower) = take(&mut self.followers, *which) else { return };
                let position = self.log.id(place.rank(&self.log));
                follower.seek(&self.both(follower.handle).0.events(through), position);
                self.followers.push(follower);
            }
            Operation::Unsubscribe(which) => drop(take(&mut self.followers, *which)),
            Operation::Tail(place, topics) => {
                let rank = place.rank(&self.log);
                let tested = subscribe(&tested.events(through), self.log.id(rank), topics);
                let oracle = subscribe(&oracle.events(through), rank, topics);
                let tested = tested.into_stream().map(|each| self.ranked(each));
                same_so_far(tested, oracle.into_stream()).await;
            }
            Operation::ListenForCommits(topics) => {
                let tested = tested.events(through).commit_signal().listen(topics);
                let oracle = self.oracle.process.commit_signal().listen(topics);
                self.listening.push(Listening::new(handle, tested, oracle));
            }
            Operation::ListenForPositions(names) => {
                let tested = tested.positions(through).tracking_signal().listen(names);
                let oracle = self.oracle.process.tracking_signal().listen(names);
                self.listening.push(Listening::new(handle, tested, oracle));
            }
            Operation::StopListening(which) => drop(take(&mut self.listening, *which)),
            Operation::IsOpen => {
                let is_open = self.handles[handle].is_open;
                assert_eq!(tested.events(through).commit_signal().is_closed(), !is_open);
                assert_eq!(tested.positions(through).tracking_signal().is_closed(), !is_open);
            }
            Operation::Close => self.close(handle).await,
            Operation::Replace => self.replace(handle).await,
        }
    }

    /// Returns the recorders of a handle, and those of the oracle with the expected results.
    fn both(&self, handle: usize) -> (Recorders, Recorders) {
        (self.handles[handle].recorders.clone(), self.oracle_of(handle).clone())
    }

    fn oracle_of(&self, handle: usize) -> &Recorders {
        if self.handles[handle].is_open { &self.oracle } else { &self.closed }
    }

    /// Returns the selection for the tested datastore and for the oracle.
    fn selections(&self, by_rank: &NotificationSelection) -> (NotificationSelection, NotificationSelection) {
        let id = |rank| self.log.id(rank);
        let by_id = NotificationSelection {
            start: by_rank.start.map(id),
            stop: by_rank.stop.map(id),
            ..by_rank.clone()
        };
        (by_id, by_rank.clone())
    }

    fn ranked(
        &self,
        notification: Result<Notification, PersistenceError>,
    ) -> Result<Notification, PersistenceError> {
        notification.map(|notification| self.log.ranked(notification))
    }

    async fn select_notifications(
        &self,
        handle: usize,
        through: Through,
        by_id: &NotificationSelection,
        by_rank: &NotificationSelection,
    ) {
        let (tested, oracle) = self.both(handle);
        let selected = tested.events(through).select_notifications(by_id.clone()).await;
        let selected = selected.map(|all| all.into_iter().map(|each| self.log.ranked(each)).collect());
        same(selected, oracle.events(through).select_notifications(by_rank.clone()).await);
    }

    async fn insert(&mut self, handle: usize, through: Through) {
        let (tested, oracle) = self.both(handle);
        let (events, tracking) = self.last.clone();
        let inserted = tested.insert(through, events.clone(), tracking.clone()).await;
        let expected = oracle.insert(through, events.clone(), tracking).await;
        let inserted = inserted.map(|ids| {
            self.log.add(ids.clone());
            ids.into_iter().map(|id| self.log.rank(id)).collect()
        });
        assert_eq!(inserted, expected);
    }

    /// Asserts that the outcomes are those of some order.
    async fn insert_at_once(&mut self, through: Through, insertions: &[(usize, Insertion)]) {
        let mut wanted = Vec::new();
        let mut tasks = JoinSet::new();
        for (index, (handle, insertion)) in insertions.iter().enumerate() {
            let (events, tracking) = insertion.resolve(&self.oracle).await;
            wanted.push((*handle, events.clone(), tracking.clone()));
            let tested = self.both(*handle).0;
            tasks.spawn(async move { (index, tested.insert(through, events, tracking).await) });
        }
        let mut inserted = tasks.join_all().await;
        inserted.sort_by_key(|(index, _)| *index);
        let mut ids: Vec<i64> =
            inserted.iter().filter_map(|(_, ids)| ids.as_ref().ok()).flatten().copied().collect();
        ids.sort_unstable();
        self.log.add(ids);
        let rank = |id| self.log.rank(id);
        let inserted: Vec<_> =
            inserted.into_iter().map(|(_, ids)| ids.map(|ids| ids.into_iter().map(rank).collect())).collect();
        for order in orders(wanted.len()) {
            let trial = self.copy_of_oracle().await;
            if self.is_outcome_of(&trial, through, &order, &wanted, &inserted).await {
                self.is_outcome_of(&self.oracle, through, &order, &wanted, &inserted).await;
                return;
            }
        }
        panic!("no order of {wanted:?} gives {inserted:?}");
    }

    async fn is_outcome_of(
        &self,
        oracle: &Recorders,
        through: Through,
        order: &[usize],
        wanted: &[(usize, Vec<StoredEvent>, Option<Tracking>)],
        inserted: &[Result<Vec<i64>, Refusal>],
    ) -> bool {
        for index in order {
            let (handle, events, tracking) = &wanted[*index];
            let oracle = if self.handles[*handle].is_open { oracle } else { &self.closed };
            let expected = oracle.insert(through, events.clone(), tracking.clone()).await;
            if !is_same_among_others(&oracle.process, events, &inserted[*index], &expected).await {
                return false;
            }
        }
        true
    }

    /// Returns a new oracle with the same content.
    async fn copy_of_oracle(&self) -> Recorders {
        let copy = (self.make_oracle)();
        let all = self.oracle.process.select_notifications(NotificationSelection::new(usize::MAX)).await;
        let events = all.expect("the oracle should be readable").into_iter().map(|each| each.event).collect();
        copy.process.insert_events(events).await.expect("the oracle had recorded it");
        for name in APPLICATIONS {
            let position = self.oracle.process.max_tracking_id(name).await;
            if let Some(position) = position.expect("the oracle should be readable") {
                let tracking = tracking(name, position);
                copy.process.insert_tracking(tracking).await.expect("the oracle had recorded it");
            }
        }
        copy
    }

    /// Closing a closed handle succeeds.
    async fn close(&mut self, handle: usize) {
        same(self.handles[handle].recorders.close().await, Ok(()));
        self.handles[handle].is_open = false;
    }

    async fn replace(&mut self, handle: usize) {
        self.followers.retain(|follower| follower.handle != handle);
        self.waits.retain(|wait| wait.handle != handle);
        self.listening.retain(|listening| listening.handle != handle);
        self.handles[handle] = Handle { recorders: self.fixture.open().await, is_open: true };
    }

    async fn settle(&mut self) {
        for follower in mem::take(&mut self.followers) {
            let oracle = self.oracle_of(follower.handle).events(Through::Process);
            let follower = follower.settle(&oracle, &self.log).await;
            self.followers.push(follower);
        }
        for mut wait in mem::take(&mut self.waits) {
            let oracle = self.oracle_of(wait.handle).positions(Through::Process);
            if wait.settle(&oracle).await {
                self.waits.push(wait);
            }
        }
        for listening in &mut self.listening {
            listening.settle(self.handles[listening.handle].is_open).await;
        }
    }
}

fn same<T: Debug + PartialEq>(tested: Result<T, PersistenceError>, expected: Result<T, PersistenceError>) {
    assert_eq!(comparable(tested), comparable(expected));
}

async fn same_items<T: Debug + PartialEq>(
    tested: impl Stream<Item = Result<T, PersistenceError>>,
    expected: impl Stream<Item = Result<T, PersistenceError>>,
) {
    let expected: Vec<_> = expected.map(comparable).collect().await;
    // One more item than expected, since a wrong stream may be endless.
    let tested: Vec<_> = tested.map(comparable).take(expected.len() + 1).collect().await;
    assert_eq!(tested, expected);
}

/// Asserts that two endless streams return the same items, as far as there are any.
async fn same_so_far<T: Debug + PartialEq>(
    tested: impl Stream<Item = Result<T, PersistenceError>>,
    expected: impl Stream<Item = Result<T, PersistenceError>>,
) {
    let (mut tested, mut expected) = (pin!(tested), pin!(expected));
    while let Some(expected) = expected.next().now_or_never() {
        let next = tested.next().await.map(comparable);
        assert_eq!(next, expected.map(comparable));
        if next.is_none() {
            return;
        }
    }
    assert_eq!(tested.next().now_or_never().map(|next| next.map(comparable)), None);
}

/// Removes the open one with this index, modulo their number.
fn take<T>(held: &mut Vec<T>, which: usize) -> Option<T> {
    let which = which.checked_rem(held.len())?;
    Some(held.swap_remove(which))
}

/// Returns all permutations of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = orders(last);
    let with_last = |order: &Vec<usize>| -> Vec<Vec<usize>> {
        (0..=last)
            .map(|place| {
                let mut order = order.clone();
                order.insert(place, last);
                order
            })
            .collect()
    };
    shorter.iter().flat_map(with_last).collect()
}

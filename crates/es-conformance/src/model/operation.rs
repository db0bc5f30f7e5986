//! The operations: their generation, and the comparison of their results.

use std::ops::RangeInclusive;

use es_core::{
    AggregateRecorder, ApplicationRecorder, Bytes, EventRange, NotificationSelection, ProcessRecorder,
    StoredEvent, Topic, Tracking, TrackingRecorder, uuid::Uuid,
};
use proptest::{
    collection::vec,
    option::of,
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
};

use super::memory::Model;
use crate::support::tracking;

static AGGREGATES: [Uuid; 3] = [Uuid::nil(), Uuid::from_u128(1), Uuid::max()];
static TOPICS: [Topic; 3] = [
    Topic::from_static("conformance:Aggregate.Opened"),
    Topic::from_static("conformance:Aggregate.Changed"),
    Topic::from_static("configuration:Übersicht.Geändert"),
];
static APPLICATIONS: [&str; 3] = ["upstream", "Upstream", "川上"];
const SMALL: RangeInclusive<i64> = -2..=8;

/// The operations of an aggregate recorder.
#[derive(Clone, Debug)]
pub(super) enum EventOperation {
    Insert(Vec<StoredEvent>),
    Select(Uuid, EventRange),
}

impl EventOperation {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            batch().prop_map(Self::Insert),
            (aggregate(), range()).prop_map(|(id, range)| Self::Select(id, range))
        ]
    }

    pub(super) async fn check(&self, recorder: &impl AggregateRecorder, model: &mut Model) {
        match self {
            Self::Insert(events) => {
                let outcome = recorder.insert_events(events.clone()).await;
                model.inserted(events, None, outcome, false);
            }
            Self::Select(id, range) => select_events(recorder, model, *id, range).await,
        }
    }
}

/// The operations of an application recorder.
#[derive(Clone, Debug)]
pub(super) enum OrderOperation {
    Insert(Vec<StoredEvent>),
    Select(Uuid, EventRange),
    Notifications(Selection),
    HighestId,
}

impl OrderOperation {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => batch().prop_map(Self::Insert),
            2 => (aggregate(), range()).prop_map(|(id, range)| Self::Select(id, range)),
            4 => Selection::any().prop_map(Self::Notifications),
            1 => Just(Self::HighestId),
        ]
    }

    pub(super) async fn check(&self, recorder: &impl ApplicationRecorder, model: &mut Model) {
        match self {
            Self::Insert(events) => {
                let outcome = recorder.insert_events(events.clone()).await;
                model.inserted(events, None, outcome, true);
            }
            Self::Select(id, range) => select_events(recorder, model, *id, range).await,
            Self::Notifications(selection) => {
                let selection = selection.among(model);
                let selected = recorder.select_notifications(selection.clone()).await;
                let selected = selected.expect("selecting notifications should succeed");
                assert_eq!(selected, model.selected(&selection));
            }
            Self::HighestId => {
                let highest = recorder.max_notification_id().await;
                assert_eq!(highest.expect("reading the highest id should succeed"), model.highest_id());
            }
        }
    }
}

/// The operations of a tracking recorder.
#[derive(Clone, Debug)]
pub(super) enum TrackingOperation {
    Insert(Tracking),
    Position(&'static str),
    IsProcessed(&'static str, i64),
}

impl TrackingOperation {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            position().prop_map(Self::Insert),
            select(&APPLICATIONS).prop_map(Self::Position),
            (select(&APPLICATIONS), SMALL).prop_map(|(name, id)| Self::IsProcessed(name, id)),
        ]
    }

    pub(super) async fn check(&self, recorder: &impl TrackingRecorder, model: &mut Model) {
        match self {
            Self::Insert(tracking) => {
                let outcome = recorder.insert_tracking(tracking.clone()).await;
                model.inserted(&[], Some(tracking), outcome.map(|()| Vec::new()), false);
            }
            Self::Position(name) => {
                let position = recorder.max_tracking_id(name).await;
                assert_eq!(position.expect("reading a position should succeed"), model.position(name));
            }
            Self::IsProcessed(name, id) => {
                let processed = recorder.has_tracking_id(name, *id).await;
                let expected = model.position(name).is_some_and(|position| position >= *id);
                assert_eq!(processed.expect("reading a position should succeed"), expected);
            }
        }
    }
}

/// The operations of a process recorder.
#[derive(Clone, Debug)]
pub(super) enum ProcessOperation {
    Order(OrderOperation),
    Tracking(TrackingOperation),
    Insert(Vec<StoredEvent>, Tracking),
}

impl ProcessOperation {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            2 => OrderOperation::any().prop_map(Self::Order),
            1 => TrackingOperation::any().prop_map(Self::Tracking),
            1 => (batch(), position()).prop_map(|(events, tracking)| Self::Insert(events, tracking)),
        ]
    }

    pub(super) async fn check(&self, recorder: &impl ProcessRecorder, model: &mut Model) {
        match self {
            Self::Order(operation) => operation.check(recorder, model).await,
            Self::Tracking(operation) => operation.check(recorder, model).await,
            Self::Insert(events, tracking) => {
                let outcome = recorder.insert_events_with_tracking(events.clone(), tracking.clone()).await;
                model.inserted(events, Some(tracking), outcome, true);
            }
        }
    }
}

/// A selection whose bounds are given by the number of notifications before them, since the recorder
/// chooses the ids.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    start: Option<(usize, bool)>,
    stop: Option<usize>,
    topics: Vec<Topic>,
    limit: usize,
}

impl Selection {
    fn any() -> impl Strategy<Value = Self> {
        let limit = prop_oneof![4 => 0..20_usize, 1 => Just(usize::MAX)];
        let topics = prop_oneof![1 => Just(Vec::new()), 1 => vec(select(&TOPICS), 1..=2)];
        (of((0..16_usize, any::<bool>())), of(0..16_usize), topics, limit)
            .prop_map(|(start, stop, topics, limit)| Self { start, stop, topics, limit })
    }

    fn among(&self, model: &Model) -> NotificationSelection {
        let id_at = |index: usize| {
            let known = model.notifications.get(index).map(|notification| notification.id);
            known.unwrap_or_else(|| model.highest_id().unwrap_or(0) + 1 + index as i64)
        };
        NotificationSelection {
            start: self.start.map(|(index, _)| id_at(index)),
            inclusive_of_start: self.start.is_none_or(|(_, inclusive)| inclusive),
            stop: self.stop.map(id_at),
            topics: self.topics.clone(),
            limit: self.limit,
            max_bytes: None,
        }
    }
}

async fn select_events(recorder: &impl AggregateRecorder, model: &Model, id: Uuid, range: &EventRange) {
    let selected = recorder.select_events(id, *range).await.expect("selecting events should succeed");
    assert_eq!(selected, model.events(id, range));
}

fn batch() -> impl Strategy<Value = Vec<StoredEvent>> {
    vec(event(), 0..=5)
}

fn event() -> impl Strategy<Value = StoredEvent> {
    let state = vec(any::<u8>(), 0..=8).prop_map(Bytes::from);
    (aggregate(), version(), select(&TOPICS), state).prop_map(
        |(originator_id, originator_version, topic, state)| StoredEvent {
            originator_id,
            originator_version,
            topic,
            state,
        },
    )
}

fn aggregate() -> impl Strategy<Value = Uuid> {
    select(&AGGREGATES)
}

/// Mostly of a few, so that they collide.
fn version() -> impl Strategy<Value = i64> {
    prop_oneof![10 => -2..=30_i64, 1 => select(&[i64::MIN, i64::MAX])]
}

fn range() -> impl Strategy<Value = EventRange> {
    let limit = prop_oneof![4 => 0..8_usize, 1 => Just(usize::MAX)];
    (of(version()), of(version()), any::<bool>(), of(limit)).prop_map(|(gt, lte, desc, limit)| EventRange {
        gt,
        lte,
        desc,
        limit,
        max_bytes: None,
    })
}

fn position() -> impl Strategy<Value = Tracking> {
    (select(&APPLICATIONS), SMALL).prop_map(|(name, id)| tracking(name, id))
}

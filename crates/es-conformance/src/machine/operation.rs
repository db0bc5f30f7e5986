//! The operations and their generation.

use std::{num::NonZeroUsize, ops::RangeInclusive};

use es_core::{
    AggregateRecorder, Bytes, EventRange, NotificationSelection, StoredEvent, Topic, Tracking,
    TrackingRecorder, uuid::Uuid,
};
use proptest::{
    collection::vec,
    option::{of, weighted},
    prelude::{Just, Strategy, any, prop_oneof},
    sample::select,
};

use super::{log::Log, recorders::Recorders};
use crate::support::{self, tracking};

/// The number of handles of the datastore.
pub(super) const HANDLES: usize = 2;

pub(super) static AGGREGATES: [Uuid; 4] = [Uuid::nil(), Uuid::from_u128(1), Uuid::from_u128(2), Uuid::max()];
static TOPICS: [Topic; 3] = [
    Topic::from_static("conformance:Aggregate.Opened"),
    Topic::from_static("conformance:Aggregate.Changed"),
    Topic::from_static("configuration:Übersicht.Geändert"),
];
const UNUSED_TOPIC: Topic = Topic::from_static("conformance:Aggregate.Never");
/// The applications whose positions are recorded.
pub(super) static APPLICATIONS: [&str; 4] = ["upstream", "Upstream", "川上", "up' -- \u{1F98A}\n%_"];
/// Names without a position: some that [`Tracking`] refuses, and an application that processed nothing.
static NO_APPLICATIONS: [&str; 4] = ["", "up\0stream", Tracking::RESERVED_NAME, "downstream"];

/// The versions that "the next version" is counted from.
const USUAL_VERSIONS: RangeInclusive<i64> = -1_000..=1_000;

/// One step of a case.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) handle: usize,
    pub(super) through: Through,
    pub(super) operation: Operation,
}

/// The recorder to use, of those with the same methods.
#[derive(Clone, Copy, Debug)]
pub(super) enum Through {
    Process,
    /// The application or tracking recorder.
    Tier,
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Insert(Insertion),
    /// Concurrently, each through a handle.
    InsertConcurrently(Vec<(usize, Insertion)>),
    /// The last insertion again, as after an unknown outcome.
    InsertAgain,
    Track(Processed),
    InsertSnapshots(Vec<NewEvent>),
    SelectEvents(Uuid, EventRange),
    SelectSnapshots(Uuid, EventRange),
    /// With this page size, or with the default.
    StreamEvents(Uuid, EventRange, Option<NonZeroUsize>),
    SelectNotifications(Selection),
    StreamNotifications(Selection, Option<NonZeroUsize>),
    HighestId,
    Position(&'static str),
    IsProcessed(&'static str, i64),
    VerifiedPosition(&'static str),
    /// With a timeout of zero.
    WaitBriefly(&'static str, i64),
    Wait(&'static str, i64),
    /// Drops the wait with this index among the open ones; the same holds for the others below.
    StopWaiting(usize),
    Subscribe(Place, Vec<Topic>, NonZeroUsize),
    NextPage(usize),
    Seek(usize, Place),
    Unsubscribe(usize),
    /// Reads a stream to the end of the log.
    Tail(Place, Vec<Topic>),
    ListenForCommits(Vec<Topic>),
    ListenForPositions(Vec<&'static str>),
    StopListening(usize),
    IsOpen,
    Close,
    /// Drops the handle, open or closed, with all that depends on it, and opens a new one.
    Replace,
}

/// Events and a position to record together.
#[derive(Clone, Debug)]
pub(super) struct Insertion {
    pub(super) events: Vec<NewEvent>,
    pub(super) processed: Option<Processed>,
}

#[derive(Clone, Debug)]
pub(super) struct NewEvent {
    aggregate: Uuid,
    version: Version,
    topic: Topic,
    /// A byte, and the number of its repetitions.
    state: (u8, usize),
}

#[derive(Clone, Copy, Debug)]
enum Version {
    /// Relative to the last version of the aggregate.
    After(i64),
    Exactly(i64),
}

/// Processed notifications of an application.
#[derive(Clone, Debug)]
pub(super) struct Processed {
    application_name: &'static str,
    first: ProcessedFrom,
    /// The number of notifications after the first.
    more: i64,
}

#[derive(Clone, Copy, Debug)]
enum ProcessedFrom {
    /// Relative to the recorded position.
    After(i64),
    Exactly(i64),
}

/// A position in the log without ids, which differ between datastores.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Rank(i64),
    /// Relative to the last notification.
    AfterEnd(i64),
}

/// A selection without ids.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    start: Option<(Place, bool)>,
    stop: Option<Place>,
    topics: Vec<Topic>,
    limit: usize,
}

impl Step {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        let through = prop_oneof![Just(Through::Process), Just(Through::Tier)];
        (0..HANDLES, through, Operation::any()).prop_map(|(handle, through, operation)| Self {
            handle,
            through,
            operation,
        })
    }
}

impl Operation {
    fn any() -> impl Strategy<Value = Self> {
        let recording = prop_oneof![
            12 => insertion().prop_map(Self::Insert),
            4 => vec((0..HANDLES, small_insertion()), 2..=3).prop_map(Self::InsertConcurrently),
            1 => Just(Self::InsertAgain),
            3 => processed().prop_map(Self::Track),
            3 => batch().prop_map(Self::InsertSnapshots),
        ];
        let reading = prop_oneof![
            5 => (aggregate(), range()).prop_map(|(id, range)| Self::SelectEvents(id, range)),
            1 => (aggregate(), range()).prop_map(|(id, range)| Self::SelectSnapshots(id, range)),
            2 => (aggregate(), range(), of(page_size()))
                .prop_map(|(id, range, size)| Self::StreamEvents(id, range, size)),
            4 => selection().prop_map(Self::SelectNotifications),
            2 => (selection(), of(page_size()))
                .prop_map(|(selection, size)| Self::StreamNotifications(selection, size)),
            1 => Just(Self::HighestId),
            1 => application().prop_map(Self::Position),
            2 => (application(), position()).prop_map(|(name, id)| Self::IsProcessed(name, id)),
            1 => application().prop_map(Self::VerifiedPosition),
        ];
        let following = prop_oneof![
            1 => (application(), position()).prop_map(|(name, id)| Self::WaitBriefly(name, id)),
            2 => (application(), position()).prop_map(|(name, id)| Self::Wait(name, id)),
            1 => any_held().prop_map(Self::StopWaiting),
            3 => (place(), topics(), page_size())
                .prop_map(|(place, topics, size)| Self::Subscribe(place, topics, size)),
            8 => any_held().prop_map(Self::NextPage),
            1 => (any_held(), place()).prop_map(|(which, place)| Self::Seek(which, place)),
            1 => any_held().prop_map(Self::Unsubscribe),
            1 => (place(), topics()).prop_map(|(place, topics)| Self::Tail(place, topics)),
            1 => topics().prop_map(Self::ListenForCommits),
            1 => vec(application(), 0..=2).prop_map(Self::ListenForPositions),
            1 => any_held().prop_map(Self::StopListening),
        ];
        let handles = prop_oneof![
            1 => Just(Self::IsOpen),
            1 => Just(Self::Close),
            2 => Just(Self::Replace),
        ];
        prop_oneof![12 => recording, 8 => reading, 9 => following, 2 => handles]
    }
}

impl Insertion {
    /// Returns the events to insert, given the recorded ones.
    pub(super) async fn resolve(&self, recorded: &Recorders) -> (Vec<StoredEvent>, Option<Tracking>) {
        let events = resolve(&self.events, &recorded.process).await;
        match &self.processed {
            None => (events, None),
            Some(processed) => (events, Some(processed.resolve(recorded).await)),
        }
    }
}

/// Returns the events with their versions, given those that a recorder has.
pub(super) async fn resolve(events: &[NewEvent], recorder: &impl AggregateRecorder) -> Vec<StoredEvent> {
    let mut resolved: Vec<StoredEvent> = Vec::with_capacity(events.len());
    for NewEvent { aggregate, version, topic, state: (byte, length) } in events {
        let originator_version = match version {
            Version::Exactly(version) => *version,
            Version::After(distance) => {
                let range = EventRange::all().lte(*USUAL_VERSIONS.end()).desc().limit(1);
                let recorded = recorder.select_events(*aggregate, range).await;
                let recorded = recorded.expect("the oracle should be readable");
                let before = resolved.iter().filter(|event| event.originator_id == *aggregate);
                let versions = recorded.iter().chain(before).map(|event| event.originator_version);
                versions.filter(|version| USUAL_VERSIONS.contains(version)).max().unwrap_or(0) + distance
            }
        };
        resolved.push(StoredEvent {
            originator_id: *aggregate,
            originator_version,
            topic: topic.clone(),
            state: Bytes::from(vec![*byte; *length]),
        });
    }
    resolved
}

impl Processed {
    pub(super) async fn resolve(&self, recorded: &Recorders) -> Tracking {
        let first = match self.first {
            ProcessedFrom::Exactly(first) => first,
            ProcessedFrom::After(distance) => {
                let position = recorded.process.max_tracking_id(self.application_name).await;
                let position = position.expect("the oracle should be readable").unwrap_or(0);
                position.saturating_add(distance)
            }
        };
        match self.more {
            0 => tracking(self.application_name, first),
            more => Tracking::spanning(self.application_name, first, first.saturating_add(more))
                .expect("the name is one, and the first is not after the last"),
        }
    }
}

impl Place {
    /// Returns the rank in this log.
    pub(super) fn rank(self, log: &Log) -> i64 {
        match self {
            Self::Rank(rank) => rank,
            Self::AfterEnd(distance) => log.length() + distance,
        }
    }
}

impl Selection {
    /// Returns the selection by ranks, which are the oracle's ids.
    pub(super) fn by_rank(&self, log: &Log) -> NotificationSelection {
        NotificationSelection {
            start: self.start.map(|(place, _)| place.rank(log)),
            inclusive_of_start: self.start.is_none_or(|(_, inclusive)| inclusive),
            stop: self.stop.map(|place| place.rank(log)),
            topics: self.topics.clone(),
            limit: self.limit,
            max_bytes: None,
        }
    }
}

fn insertion() -> impl Strategy<Value = Insertion> {
    let processed = prop_oneof![2 => Just(None), 1 => processed().prop_map(Some)];
    (batch(), processed).prop_map(|(events, processed)| Insertion { events, processed })
}

/// Returns a few events, so that concurrent insertions can succeed. It is never empty: the order of empty
/// insertions is unknown.
fn small_insertion() -> impl Strategy<Value = Insertion> {
    let processed = prop_oneof![2 => Just(None), 1 => processed().prop_map(Some)];
    (vec(event(), 1..=3), processed).prop_map(|(events, processed)| Insertion { events, processed })
}

fn batch() -> impl Strategy<Value = Vec<NewEvent>> {
    prop_oneof![12 => vec(event(), 0..=4), 1 => vec(event(), 60..=90)]
}

fn event() -> impl Strategy<Value = NewEvent> {
    let byte = prop_oneof![1 => Just(0), 3 => any::<u8>()];
    let length = prop_oneof![16 => 0..8_usize, 1 => 0..90_000_usize];
    (aggregate(), version(), select(&TOPICS), (byte, length))
        .prop_map(|(aggregate, version, topic, state)| NewEvent { aggregate, version, topic, state })
}

fn aggregate() -> impl Strategy<Value = Uuid> {
    select(&AGGREGATES)
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        40 => Just(Version::After(1)),
        2 => (-1..=3_i64).prop_map(Version::After),
        2 => (-2..=8_i64).prop_map(Version::Exactly),
        1 => select(&[i64::MIN, i64::MAX]).prop_map(Version::Exactly),
    ]
}

/// A bound of versions.
fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![10 => -1..=6_i64, 3 => -2..=30_i64, 1 => select(&[i64::MIN, i64::MAX])]
}

fn range() -> impl Strategy<Value = EventRange> {
    let limit = prop_oneof![4 => 0..8_usize, 1 => Just(usize::MAX)];
    let range =
        (weighted(0.4, bound()), weighted(0.4, bound()), proptest::bool::weighted(0.4), weighted(0.4, limit));
    range.prop_map(|(gt, lte, desc, limit)| EventRange { gt, lte, desc, limit, max_bytes: None })
}

fn processed() -> impl Strategy<Value = Processed> {
    let first = prop_oneof![
        6 => Just(ProcessedFrom::After(1)),
        4 => (-2..=3_i64).prop_map(ProcessedFrom::After),
        2 => (-2..=8_i64).prop_map(ProcessedFrom::Exactly),
        1 => select(&[i64::MIN, i64::MAX]).prop_map(ProcessedFrom::Exactly),
    ];
    (select(&APPLICATIONS), first, prop_oneof![1 => Just(0), 1 => 0..=4_i64])
        .prop_map(|(application_name, first, more)| Processed { application_name, first, more })
}

fn application() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => select(&APPLICATIONS), 1 => select(&NO_APPLICATIONS)]
}

fn position() -> impl Strategy<Value = i64> {
    prop_oneof![10 => -2..=12_i64, 1 => select(&[i64::MIN, i64::MAX])]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        4 => (-1..=20_i64).prop_map(Place::Rank),
        4 => (-6..=3_i64).prop_map(Place::AfterEnd),
        1 => select(&[i64::MIN, i64::MAX]).prop_map(Place::Rank),
    ]
}

fn topics() -> impl Strategy<Value = Vec<Topic>> {
    let topic = prop_oneof![8 => select(&TOPICS), 1 => Just(UNUSED_TOPIC)];
    prop_oneof![1 => Just(Vec::new()), 1 => vec(topic, 1..=2)]
}

fn selection() -> impl Strategy<Value = Selection> {
    let limit = prop_oneof![4 => 0..20_usize, 2 => Just(100), 1 => Just(usize::MAX)];
    (of((place(), any::<bool>())), of(place()), topics(), limit)
        .prop_map(|(start, stop, topics, limit)| Selection { start, stop, topics, limit })
}

fn page_size() -> impl Strategy<Value = NonZeroUsize> {
    (1..=9_usize).prop_map(support::page_size)
}

/// An index of an open subscription, wait or listener; only a few are open.
fn any_held() -> impl Strategy<Value = usize> {
    0..12_usize
}

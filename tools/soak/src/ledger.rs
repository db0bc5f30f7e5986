//! The aggregates of a database, and what is acknowledged of each.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use es_core::{Bytes, Notification, StoredEvent, Topic, uuid::Uuid};

/// The number of aggregates.
pub const AGGREGATES: usize = 2_048;

/// An aggregate's topic is this, and its number modulo the number of topics.
const TOPICS: [&str; 4] = ["soak:Kind0", "soak:Kind1", "soak:Kind2", "soak:Kind3"];

/// A multiplier that scatters consecutive numbers over all ids, as those of real aggregates are.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The acknowledged events.
#[derive(Debug)]
pub struct Ledger {
    versions: Vec<AtomicI64>,
    last_id: AtomicI64,
    events: AtomicU64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            versions: (0..AGGREGATES).map(|_| AtomicI64::new(0)).collect(),
            last_id: AtomicI64::new(0),
            events: AtomicU64::new(0),
        }
    }
}

impl Ledger {
    /// The version up to which events of an aggregate are acknowledged; 0 without any.
    pub fn version(&self, aggregate: usize) -> i64 {
        self.versions.get(aggregate).map_or(0, |version| version.load(Ordering::Acquire))
    }

    /// The highest id that is acknowledged.
    pub fn last_id(&self) -> i64 {
        self.last_id.load(Ordering::Acquire)
    }

    /// The number of acknowledged events.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Events of an aggregate up to a version are acknowledged, the last one under this id.
    pub fn acknowledged(&self, aggregate: usize, version: i64, id: i64) {
        if let Some(noted) = self.versions.get(aggregate) {
            let before = noted.fetch_max(version, Ordering::AcqRel);
            let more = u64::try_from(version - before).unwrap_or(0);
            self.events.fetch_add(more, Ordering::AcqRel);
        }
        self.last_id.fetch_max(id, Ordering::AcqRel);
    }
}

/// The topic of an aggregate's events.
pub fn topic(aggregate: usize) -> Topic {
    Topic::from_static(TOPICS[aggregate % TOPICS.len()])
}

/// Returns whether an aggregate's events have this topic; true without a topic.
pub fn has_topic(aggregate: usize, wanted: Option<usize>) -> bool {
    wanted.is_none_or(|wanted| aggregate % TOPICS.len() == wanted % TOPICS.len())
}

/// The id of an aggregate.
pub fn originator_id(aggregate: usize) -> Uuid {
    let number = aggregate as u64;
    Uuid::from_u64_pair((number + 1).wrapping_mul(SCATTER), number)
}

/// An event that tells when it was made.
pub fn event(aggregate: usize, version: i64, padding: usize) -> StoredEvent {
    let mut state = now().as_nanos().to_string().into_bytes();
    state.push(b'#');
    state.resize(state.len() + padding, b'x');
    StoredEvent {
        originator_id: originator_id(aggregate),
        originator_version: version,
        topic: topic(aggregate),
        state: Bytes::from(state),
    }
}

/// Which aggregate a notification is about; none of ours if there is none.
pub fn aggregate(event: &StoredEvent) -> Option<usize> {
    let aggregate = usize::try_from(event.originator_id.as_u64_pair().1).ok()?;
    (aggregate < AGGREGATES && event.topic == topic(aggregate)).then_some(aggregate)
}

/// The age of a notification's event.
pub fn age(notification: &Notification) -> Duration {
    let text = notification.event.state.split(|byte| *byte == b'#').next().unwrap_or_default();
    let made = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    now().saturating_sub(Duration::from_nanos(made))
}

/// The time since the first call: the clock of events.
fn now() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

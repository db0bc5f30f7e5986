//! The events that are stored: the same in every run, from a fixed seed.

use std::sync::atomic::{AtomicU64, Ordering};

use es_core::{Bytes, StoredEvent, Topic};
use uuid::Uuid;

/// What all events are made from.
pub(crate) const SEED: u64 = 0x5EED_0FEE;
const TOPIC: &str = "bank:Account.Credited";
/// Bytes of state of an event, about those of a credited account.
pub(crate) const STATE_SIZE: usize = 200;

/// An endless supply of aggregates that nobody has stored yet.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    next: AtomicU64,
}

impl Supply {
    /// A supply of the aggregates from this one on: processes that store side by side need different ones.
    pub(crate) fn starting_at(index: u64) -> Self {
        Self { next: AtomicU64::new(index) }
    }

    /// The events 1 to `count` of a new aggregate.
    pub(crate) fn events(&self, count: usize) -> Vec<StoredEvent> {
        let originator_id = originator(self.next.fetch_add(1, Ordering::Relaxed));
        events(originator_id, count).collect()
    }
}

/// The events 1 to `count` of an aggregate.
pub(crate) fn events(originator_id: Uuid, count: usize) -> impl Iterator<Item = StoredEvent> {
    (1..=count as i64).map(move |version| event(originator_id, version))
}

/// The id of an aggregate: scattered like random ones, as indexes meet them.
pub(crate) fn originator(index: u64) -> Uuid {
    let mut random = Random(SEED ^ index.wrapping_mul(0xA076_1D64_78BD_642F));
    let bits = Uuid::from_u64_pair(random.next(), random.next());
    uuid::Builder::from_random_bytes(bits.into_bytes()).into_uuid()
}

fn event(originator_id: Uuid, originator_version: i64) -> StoredEvent {
    let (high, low) = originator_id.as_u64_pair();
    let mut random = Random(high ^ low ^ originator_version as u64);
    let mut state = Vec::with_capacity(STATE_SIZE);
    while state.len() < STATE_SIZE {
        state.extend_from_slice(format!("{:016x}", random.next()).as_bytes());
    }
    state.truncate(STATE_SIZE);
    StoredEvent {
        originator_id,
        originator_version,
        topic: Topic::from_static(TOPIC),
        state: Bytes::from(state),
    }
}

/// SplitMix64: a few lines, and the same numbers everywhere and for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{STATE_SIZE, Supply, originator};

    #[test]
    fn every_run_stores_the_same() {
        assert_eq!(Supply::default().events(3), Supply::default().events(3));
    }

    #[test]
    fn no_aggregate_comes_twice() {
        let ids: HashSet<_> = (0..10_000).map(originator).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn versions_count_from_one_and_states_have_their_size() {
        let events = Supply::default().events(3);
        assert_eq!(events.iter().map(|event| event.originator_version).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(events.iter().all(|event| event.state.len() == STATE_SIZE));
    }
}

//! The events that are stored: the same in every run, from a fixed seed.

use std::sync::atomic::{AtomicU64, Ordering};

use es_core::{Bytes, StoredEvent, Topic};
use uuid::Uuid;

/// What all events are made from.
pub(crate) const SEED: u64 = 0x5EED_0FEE;
const TOPIC: &str = "bank:Account.Credited";
/// Bytes of state of an event, about those of a credited account.
pub(crate) const STATE_SIZE: usize = 200;
/// Bytes of state of a large event.
pub(crate) const LARGE_STATE_SIZE: usize = 2_048;

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

    /// The events 1 to `count` of a new aggregate, with `size` bytes of state each.
    pub(crate) fn events(&self, count: usize, size: usize) -> Vec<StoredEvent> {
        let originator_id = originator(self.next.fetch_add(1, Ordering::Relaxed));
        events(originator_id, count, size).collect()
    }
}

/// The events 1 to `count` of an aggregate, with `size` bytes of state each.
pub(crate) fn events(originator_id: Uuid, count: usize, size: usize) -> impl Iterator<Item = StoredEvent> {
    (1..=count as i64).map(move |version| event(originator_id, version, size))
}

/// The id of an aggregate: scattered like random ones, as indexes meet them.
pub(crate) fn originator(index: u64) -> Uuid {
    let mut random = Random(SEED ^ index.wrapping_mul(0xA076_1D64_78BD_642F));
    let bits = Uuid::from_u64_pair(random.next(), random.next());
    uuid::Builder::from_random_bytes(bits.into_bytes()).into_uuid()
}

fn event(originator_id: Uuid, originator_version: i64, size: usize) -> StoredEvent {
    let (high, low) = originator_id.as_u64_pair();
    let mut random = Random(high ^ low ^ originator_version as u64);
    let mut state = Vec::with_capacity(size + 16);
    while state.len() < size {
        state.extend(hexadecimal(random.next()));
    }
    state.truncate(size);
    StoredEvent {
        originator_id,
        originator_version,
        topic: Topic::from_static(TOPIC),
        state: Bytes::from(state),
    }
}

/// Sixteen hexadecimal digits.
fn hexadecimal(number: u64) -> [u8; 16] {
    let digit = |place: u32| b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    std::array::from_fn(|place| digit(place as u32))
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

    use super::{Supply, hexadecimal, originator};

    #[test]
    fn every_run_stores_the_same() {
        assert_eq!(Supply::default().events(3, 50), Supply::default().events(3, 50));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[test]
    fn no_aggregate_comes_twice() {
        let ids: HashSet<_> = (0..10_000).map(originator).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn versions_count_from_one_and_states_have_their_size() {
        let events = Supply::default().events(3, 50);
        assert_eq!(events.iter().map(|event| event.originator_version).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(events.iter().all(|event| event.state.len() == 50));
    }
}

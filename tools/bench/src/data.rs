//! The events to store: the same in every run, from a fixed seed.

use std::sync::atomic::{AtomicU64, Ordering};

use es_core::{Bytes, StoredEvent, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The seed of all events.
pub(crate) const SEED: u64 = 0x5EED_0FEE;
pub(crate) const TOPIC: &str = "bank:Account.Credited";
/// Bytes of state of an event, about as many as for a credited account.
pub(crate) const STATE_SIZE: usize = 200;
/// The first aggregate that is stored before a measurement; far from those that appends make.
const STORED: u64 = 1 << 40;
/// The time of the first aggregate that is stored before a measurement, in milliseconds: early in 2020.
const LONG_AGO: u64 = 1_578_000_000_000;
/// Bytes of state of a large event.
pub(crate) const LARGE_STATE_SIZE: usize = 2_048;

/// The kind of aggregate ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ids {
    /// Random ids (UUID version 4).
    #[default]
    Random,
    /// Time-ordered ids (UUID version 7).
    TimeOrdered,
}

impl Ids {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::TimeOrdered => "time-ordered",
        }
    }

    /// Returns the id of an aggregate that is stored before a measurement.
    pub(crate) fn stored(self, index: u64) -> Uuid {
        match self {
            Self::Random => originator(STORED + index),
            Self::TimeOrdered => {
                let bits = originator(index).into_bytes();
                let random = std::array::from_fn(|place| bits[place + 6]);
                uuid::Builder::from_unix_timestamp_millis(LONG_AGO + index, &random).into_uuid()
            }
        }
    }
}

/// An endless supply of new aggregates.
#[derive(Debug, Default)]
pub(crate) struct Supply {
    next: AtomicU64,
    ids: Ids,
}

impl Supply {
    /// Creates a supply that starts at this aggregate: processes that store at the same time need different
    /// ones.
    pub(crate) fn starting_at(index: u64) -> Self {
        Self { next: AtomicU64::new(index), ids: Ids::Random }
    }

    /// Returns the same supply with ids of this kind. Time-ordered ids have the present time.
    pub(crate) fn with_ids(self, ids: Ids) -> Self {
        Self { ids, ..self }
    }

    /// Returns the events 1 to `count` of a new aggregate, with `size` bytes of state each.
    pub(crate) fn events(&self, count: usize, size: usize) -> Vec<StoredEvent> {
        let originator_id = match self.ids {
            Ids::Random => originator(self.next.fetch_add(1, Ordering::Relaxed)),
            Ids::TimeOrdered => Uuid::now_v7(),
        };
        events(originator_id, count, size).collect()
    }

    /// Returns for each task the events of so many commits, with a new aggregate for each commit. They are
    /// made in the order in which tasks that take turns commit them.
    pub(crate) fn batches(
        &self,
        tasks: usize,
        commits: usize,
        count: usize,
        size: usize,
    ) -> Vec<Vec<Vec<StoredEvent>>> {
        let mut batches = vec![Vec::with_capacity(commits); tasks];
        for _ in 0..commits {
            batches.iter_mut().for_each(|of_task| of_task.push(self.events(count, size)));
        }
        batches
    }
}

/// Returns the events 1 to `count` of an aggregate, with `size` bytes of state each.
pub(crate) fn events(originator_id: Uuid, count: usize, size: usize) -> impl Iterator<Item = StoredEvent> {
    (1..=count as i64).map(move |version| event(originator_id, version, size))
}

/// Returns the id of an aggregate: scattered, so that indexes receive random ids.
pub(crate) fn originator(index: u64) -> Uuid {
    let mut random = Random(SEED ^ index.wrapping_mul(0xA076_1D64_78BD_642F));
    let bits = Uuid::from_u64_pair(random.next(), random.next());
    uuid::Builder::from_random_bytes(bits.into_bytes()).into_uuid()
}

/// Returns an event of an aggregate, with `size` bytes of state.
pub(crate) fn event(originator_id: Uuid, originator_version: i64, size: usize) -> StoredEvent {
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

/// SplitMix64: a few lines, and the same numbers on every machine and in every version.
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

    use super::{Ids, Supply, hexadecimal, originator};

    #[test]
    fn every_run_stores_the_same_events() {
        assert_eq!(Supply::default().events(3, 50), Supply::default().events(3, 50));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }

    #[test]
    fn aggregates_are_distinct() {
        let ids: HashSet<_> = (0..10_000).map(originator).collect();
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    fn time_ordered_ids_ascend() {
        let supply = Supply::default().with_ids(Ids::TimeOrdered);
        let stored = (0..3).map(|index| Ids::TimeOrdered.stored(index));
        let ids: Vec<_> = stored.chain((0..3).map(|_| supply.events(1, 50)[0].originator_id)).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn versions_count_from_one_and_states_have_their_size() {
        let events = Supply::default().events(3, 50);
        assert_eq!(events.iter().map(|event| event.originator_version).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(events.iter().all(|event| event.state.len() == 50));
    }
}

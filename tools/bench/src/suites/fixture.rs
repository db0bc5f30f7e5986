//! The events for measurements of reads: the same ones in every datastore.

use es_core::StoredEvent;
use uuid::Uuid;

use crate::{
    bench::Scale,
    data::{Ids, STATE_SIZE, events},
};

/// Events of each of the aggregates that fill the store.
const FILLER: usize = 10;
/// The aggregates with known sizes.
const KNOWN: usize = 3;

/// The number of events, and the aggregates to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixture {
    pub(crate) events: usize,
    pub(crate) sizes: [usize; KNOWN],
    ids: Ids,
}

impl Fixture {
    pub(crate) fn new(scale: Scale) -> Self {
        let (events, largest) = scale.pick((1_000_000, 100_000), (20_000, 10_000));
        Self { events, sizes: [10, 1_000, largest], ids: Ids::Random }
    }

    /// Creates a fixture of so many events, with aggregates that are small enough for every store.
    pub(crate) fn around(events: usize, ids: Ids) -> Self {
        let sizes = [10, 1_000, 10_000];
        Self { events: events + sizes.iter().sum::<usize>(), sizes, ids }
    }

    /// Returns the aggregate whose size is at this index of `sizes`.
    pub(crate) fn originator(self, index: usize) -> Uuid {
        self.ids.stored(index as u64)
    }

    /// Returns at most `count` aggregates of ten events each, from all parts of the store.
    pub(crate) fn small(self, count: usize) -> Vec<Uuid> {
        let aggregates = (self.events - self.sizes.iter().sum::<usize>()) / FILLER;
        let distance = (aggregates / count).max(1);
        (0..aggregates).step_by(distance).take(count).map(|index| self.originator(KNOWN + index)).collect()
    }

    /// Returns all events.
    pub(crate) fn stored(self) -> impl Iterator<Item = StoredEvent> {
        let rest = self.events - self.sizes.iter().sum::<usize>();
        let sizes = self.sizes.into_iter().chain(std::iter::repeat_n(FILLER, rest.div_ceil(FILLER)));
        let aggregates =
            sizes.enumerate().map(move |(index, size)| events(self.originator(index), size, STATE_SIZE));
        aggregates.flatten().take(self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::Fixture;
    use crate::bench::Scale;

    #[test]
    fn the_fixture_has_the_declared_number_of_events() {
        let fixture = Fixture::new(Scale::Quick);
        assert_eq!(fixture.stored().count(), fixture.events);
        for (index, size) in fixture.sizes.into_iter().enumerate() {
            let id = fixture.originator(index);
            assert_eq!(fixture.stored().filter(|event| event.originator_id == id).count(), size);
        }
        for id in fixture.small(3) {
            assert_eq!(fixture.stored().filter(|event| event.originator_id == id).count(), 10);
        }
    }
}

//! The events that reads find: the same ones in every datastore.

use es_core::StoredEvent;
use uuid::Uuid;

use crate::{
    bench::Scale,
    data::{Ids, STATE_SIZE, events},
};

/// Events of each of the aggregates that fill the store up.
const FILLER: usize = 10;
/// The aggregates with known sizes.
const KNOWN: usize = 3;

/// How many events there are, and which aggregates are loaded.
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

    /// So many events around aggregates that are small enough to be in every store.
    pub(crate) fn around(events: usize, ids: Ids) -> Self {
        let sizes = [10, 1_000, 10_000];
        Self { events: events + sizes.iter().sum::<usize>(), sizes, ids }
    }

    /// The aggregate that has the size at this place of `sizes`.
    pub(crate) fn originator(self, index: usize) -> Uuid {
        self.ids.stored(index as u64)
    }

    /// At most `count` aggregates of ten events each, from all over the store.
    pub(crate) fn small(self, count: usize) -> Vec<Uuid> {
        let aggregates = (self.events - self.sizes.iter().sum::<usize>()) / FILLER;
        let distance = (aggregates / count).max(1);
        (0..aggregates).step_by(distance).take(count).map(|index| self.originator(KNOWN + index)).collect()
    }

    /// All events.
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
    fn the_fixture_has_as_many_events_as_it_says() {
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

//! The events of a log that is measured.

use es_core::StoredEvent;

use crate::data::{Ids, STATE_SIZE, event};

/// Events of each aggregate.
pub(super) const OF_AGGREGATE: usize = 10;
/// Aggregates that receive events at the same time: the events of one are that far apart in the log.
const ACTIVE: usize = 1_000;

/// Returns so many events, in the order in which they are recorded. The events of an aggregate are far apart,
/// as those of a business are: a load reads other pages for each of them.
pub(super) fn events(ids: Ids, count: usize) -> impl Iterator<Item = StoredEvent> {
    (0..count).map(move |index| {
        let (round, place) = (index / (ACTIVE * OF_AGGREGATE), index % (ACTIVE * OF_AGGREGATE));
        let aggregate = round * ACTIVE + place % ACTIVE;
        event(ids.stored(aggregate as u64), (place / ACTIVE + 1) as i64, STATE_SIZE)
    })
}

/// Returns the numbers of so many aggregates from all parts of the log.
pub(super) fn aggregates(stored: usize, count: usize) -> impl Iterator<Item = u64> {
    let aggregates = (stored / OF_AGGREGATE).max(1);
    // The distance of two is no divisor of their number, so that they are in no order.
    (0..count).map(move |number| ((number * 7_919) % aggregates) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::{OF_AGGREGATE, events};
    use crate::data::Ids;

    #[test]
    fn aggregates_have_consecutive_versions() {
        let mut last = HashMap::new();
        for event in events(Ids::Random, 20_000) {
            let version = last.entry(event.originator_id).or_insert(0);
            *version += 1;
            assert_eq!(event.originator_version, *version);
        }
        assert!(last.values().all(|version| *version == OF_AGGREGATE as i64));
    }
}

//! The events of one aggregate by version.

use es_core::EventRange;

/// The positions in the log of the events of one aggregate, ordered by version.
///
/// A sorted vector: versions nearly always arrive in order and go to its end, and a range of them
/// is a slice.
#[derive(Default)]
pub(crate) struct Versions(Vec<Entry>);

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    version: i64,
    pub(crate) position: usize,
}

impl Versions {
    /// Adds a version; returns false if it exists.
    pub(crate) fn insert(&mut self, version: i64, position: usize) -> bool {
        let entry = Entry { version, position };
        if self.0.last().is_none_or(|last| last.version < version) {
            self.0.push(entry);
            return true;
        }
        match self.find(version) {
            Ok(_) => false,
            Err(place) => {
                self.0.insert(place, entry);
                true
            }
        }
    }

    pub(crate) fn remove(&mut self, version: i64) {
        if let Ok(place) = self.find(version) {
            self.0.remove(place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries within the bounds of `range`, lowest version first.
    pub(crate) fn within(&self, range: &EventRange) -> &[Entry] {
        let from = range.gt.map_or(0, |gt| self.count_up_to(gt));
        let to = range.lte.map_or(self.0.len(), |lte| self.count_up_to(lte));
        self.0.get(from..to).unwrap_or_default()
    }

    fn count_up_to(&self, version: i64) -> usize {
        self.0.partition_point(|entry| entry.version <= version)
    }

    fn find(&self, version: i64) -> Result<usize, usize> {
        self.0.binary_search_by_key(&version, |entry| entry.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(versions: &Versions, range: EventRange) -> Vec<usize> {
        versions.within(&range).iter().map(|entry| entry.position).collect()
    }

    #[test]
    fn sorts_what_comes_out_of_order() {
        let mut versions = Versions::default();
        for (position, version) in [5, -1, i64::MAX, 3, i64::MIN].into_iter().enumerate() {
            assert!(versions.insert(version, position));
        }
        assert!(!versions.insert(3, 9) && !versions.insert(i64::MAX, 9));
        assert_eq!(positions(&versions, EventRange::all()), [4, 1, 3, 0, 2]);
        assert_eq!(positions(&versions, EventRange::all().gt(-1).lte(5)), [3, 0]);
        assert!(positions(&versions, EventRange::all().gt(5).lte(-1)).is_empty());

        versions.remove(3);
        versions.remove(4);
        assert_eq!(positions(&versions, EventRange::all()), [4, 1, 0, 2]);
    }
}

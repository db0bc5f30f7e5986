//! Maps the notifications of the tested datastore to those of the oracle.

use es_core::Notification;

/// The ids of the tested datastore, in order. A datastore chooses its ids, so their ranks are compared,
/// counted from 1, which are the oracle's ids.
#[derive(Debug, Default)]
pub(super) struct Log(Vec<i64>);

impl Log {
    /// Adds the ids of an insertion.
    pub(super) fn add(&mut self, ids: impl IntoIterator<Item = i64>) {
        for id in ids {
            let last = self.0.last().copied().unwrap_or(0);
            assert!(id > last, "id {id} follows id {last}");
            self.0.push(id);
        }
    }

    pub(super) fn length(&self) -> i64 {
        self.0.len() as i64
    }

    pub(super) fn rank(&self, id: i64) -> i64 {
        let known = self.0.binary_search(&id);
        known.unwrap_or_else(|_| panic!("id {id} is unknown: {:?}", self.0)) as i64 + 1
    }

    /// Returns the number of notifications up to an id, which need not exist, plus one if it is beyond the
    /// end.
    pub(super) fn up_to(&self, id: i64) -> i64 {
        let is_beyond = id > self.0.last().copied().unwrap_or(0);
        self.0.partition_point(|known| *known <= id) as i64 + i64::from(is_beyond)
    }

    /// Returns the id of a rank, which may be before the beginning or beyond the end.
    pub(super) fn id(&self, rank: i64) -> i64 {
        let beyond = rank.saturating_sub(self.length());
        let last = self.0.last().copied().unwrap_or(0);
        if rank <= 0 || rank == i64::MAX {
            return rank;
        }
        self.0.get(rank as usize - 1).copied().unwrap_or_else(|| last.saturating_add(beyond))
    }

    /// Returns the notification with its rank as its id.
    pub(super) fn ranked(&self, notification: Notification) -> Notification {
        Notification { id: self.rank(notification.id), ..notification }
    }
}

//! A key store in memory.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use es_core::PersistenceError;
use parking_lot::Mutex;

use crate::{Erasure, KeyRecord, KeyStore, Subject, WrappedKey};

/// A key store in memory, for tests. Its clones share the keys.
#[derive(Clone, Debug, Default)]
pub struct MemoryKeyStore(Arc<Mutex<BTreeMap<Subject, KeyRecord>>>);

impl MemoryKeyStore {
    /// A store without keys.
    pub fn new() -> Self {
        Self::default()
    }
}

impl KeyStore for MemoryKeyStore {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        let records = self.0.lock();
        Ok(subjects.iter().filter_map(|subject| records.get(subject).cloned()).collect())
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        let mut records = self.0.lock();
        for key in keys {
            records.entry(key.subject.clone()).or_insert(KeyRecord::Key(key));
        }
        Ok(())
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        match self.0.lock().entry(erasure.subject.clone()) {
            Entry::Occupied(mut entry) => {
                if let KeyRecord::Erased(earlier) = entry.get() {
                    return Ok(earlier.clone());
                }
                entry.insert(KeyRecord::Erased(erasure.clone()));
            }
            Entry::Vacant(entry) => {
                entry.insert(KeyRecord::Erased(erasure.clone()));
            }
        }
        Ok(erasure)
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let records = self.0.lock();
        let erasures = records.range((start, Bound::Unbounded)).filter_map(|(_, record)| match record {
            KeyRecord::Erased(erasure) => Some(erasure.clone()),
            KeyRecord::Key(_) => None,
        });
        Ok(erasures.take(limit).collect())
    }
}

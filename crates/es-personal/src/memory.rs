//! A key store in memory.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use es_core::PersistenceError;
use parking_lot::Mutex;

use crate::{Erasure, KeyRecord, KeyReplacement, KeyStore, Subject, WrappedKey};

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

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        let key = |record: &KeyRecord| match record {
            KeyRecord::Key(key) => Some(key.clone()),
            KeyRecord::Erased(_) => None,
        };
        Ok(self
            .0
            .lock()
            .range(after_subject(after))
            .filter_map(|(_, record)| key(record))
            .take(limit)
            .collect())
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        let mut records = self.0.lock();
        let mut replaced = 0;
        for KeyReplacement { current, replacement } in replacements {
            match records.get_mut(&current.subject) {
                Some(KeyRecord::Key(key)) if *key == current => {
                    *key = replacement;
                    replaced += 1;
                }
                _ => {}
            }
        }
        Ok(replaced)
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        let erasure = |record: &KeyRecord| match record {
            KeyRecord::Erased(erasure) => Some(erasure.clone()),
            KeyRecord::Key(_) => None,
        };
        Ok(self
            .0
            .lock()
            .range(after_subject(after))
            .filter_map(|(_, record)| erasure(record))
            .take(limit)
            .collect())
    }
}

/// The range of the subjects after one, or of all.
fn after_subject(after: Option<Subject>) -> (Bound<Subject>, Bound<Subject>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

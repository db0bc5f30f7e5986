//! The keys in memory, and the subjects whose keys are missing there.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::PersistenceError;
use es_crypto::Sealer;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, RwLock};

use crate::Subject;

/// The content of the key store for a subject.
pub(crate) enum SubjectState {
    Key(Sealer),
    Erased,
    /// Neither a key nor an erasure.
    Absent,
    /// The key cannot be unwrapped.
    Failed(PersistenceError),
}

/// The need of a value for its subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lookup {
    Existing,
    /// A key, which is created if the subject has neither a key nor an erasure.
    OrCreate,
}

/// A bounded cache. An entry expires a fixed time after the request that loaded it.
pub(crate) struct KeyCache {
    capacity: NonZeroUsize,
    lifetime: Duration,
    entries: RwLock<Entries>,
    /// The subjects that were looked up in vain; at most as many as the capacity.
    missing: Mutex<BTreeMap<Subject, Lookup>>,
}

#[derive(Default)]
struct Entries {
    /// By a faster hash than that of std; an attacker who makes entries collide is limited by the capacity.
    by_subject: HashMap<Subject, Entry, RandomState>,
    /// The entries by age. A replaced entry is found by its time, and then left alone.
    by_age: VecDeque<(Instant, Subject)>,
}

struct Entry {
    state: Arc<SubjectState>,
    requested_at: Instant,
}

impl KeyCache {
    pub(crate) fn new(capacity: NonZeroUsize, lifetime: Duration) -> Self {
        Self { capacity, lifetime, entries: RwLock::default(), missing: Mutex::default() }
    }

    /// Returns the state of a subject. If it is not in memory, it is noted as missing.
    pub(crate) fn state(&self, subject: &Subject, lookup: Lookup) -> Option<Arc<SubjectState>> {
        let state = self.entries.read().state(subject, self.lifetime);
        match state.as_deref() {
            Some(SubjectState::Key(_) | SubjectState::Erased) => return state,
            // Returned once: the next call asks the key store again.
            Some(SubjectState::Absent | SubjectState::Failed(_)) => {
                self.entries.write().by_subject.remove(subject);
                if lookup == Lookup::Existing || matches!(state.as_deref(), Some(SubjectState::Failed(_))) {
                    return state;
                }
            }
            None => {}
        }
        let mut missing = self.missing.lock();
        if missing.len() < self.capacity.get() || missing.contains_key(subject) {
            let noted = missing.entry(subject.clone()).or_insert(lookup);
            *noted = lookup.max(*noted);
        }
        None
    }

    /// Returns the subjects that are missing, and forgets them.
    pub(crate) fn take_missing(&self) -> BTreeMap<Subject, Lookup> {
        std::mem::take(&mut *self.missing.lock())
    }

    /// Inserts the states that a request at this time returned; a state of a later request stays.
    pub(crate) fn insert(
        &self,
        requested_at: Instant,
        states: impl IntoIterator<Item = (Subject, SubjectState)>,
    ) {
        let mut entries = self.entries.write();
        for (subject, state) in states {
            let is_newer = |entry: &Entry| entry.requested_at > requested_at;
            if entries.by_subject.get(&subject).is_some_and(is_newer) {
                continue;
            }
            entries.make_room(self.capacity, self.lifetime);
            entries.by_age.push_back((requested_at, subject.clone()));
            entries.by_subject.insert(subject, Entry { state: Arc::new(state), requested_at });
        }
    }
}

impl Entries {
    fn state(&self, subject: &Subject, lifetime: Duration) -> Option<Arc<SubjectState>> {
        let entry = self.by_subject.get(subject)?;
        (entry.requested_at.elapsed() < lifetime).then(|| Arc::clone(&entry.state))
    }

    /// Removes expired entries, and the oldest ones as long as the cache is full.
    fn make_room(&mut self, capacity: NonZeroUsize, lifetime: Duration) {
        while let Some((requested_at, _)) = self.by_age.front()
            && (self.by_age.len() >= capacity.get() || requested_at.elapsed() >= lifetime)
        {
            let Some((requested_at, subject)) = self.by_age.pop_front() else { return };
            if self.by_subject.get(&subject).is_some_and(|entry| entry.requested_at == requested_at) {
                self.by_subject.remove(&subject);
            }
        }
    }
}

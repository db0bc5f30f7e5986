//! The keys of data subjects: in memory, loaded from the key store.

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{BoxFuture, PersistenceError};
use es_crypto::{AesKey, Sealer};

use crate::{
    Erasure, KeyRecord, KeyStore, KeyWrapper, Subject, WrappedKey,
    cache::{KeyCache, Lookup, SubjectState},
    store::verify_erased_by,
};

const KEY_BYTES: usize = 32;

/// The keys of data subjects.
///
/// A handle: its clones share the keys in memory. Make one for each process, and
/// [register](Self::register) the types of personal values with its transcoder.
#[derive(Clone)]
pub struct SubjectKeys(Arc<Inner>);

struct Inner {
    cache: KeyCache,
    lifetime: Duration,
    source: Box<dyn Source>,
}

impl SubjectKeys {
    /// The number of keys that are kept in memory by default.
    pub const DEFAULT_CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

    /// The time after which keys in memory expire by default.
    pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);

    /// Keys in this store, wrapped by this wrapper, such as a [`KeyRing`](es_crypto::KeyRing).
    pub fn new(store: impl KeyStore, wrapper: impl KeyWrapper) -> Self {
        Self::with_cache(store, wrapper, Self::DEFAULT_CAPACITY, Self::DEFAULT_LIFETIME)
    }

    /// The same with other limits of the cache: the number of keys in memory, at least the number of subjects
    /// of one event, and the time after which they expire. That is the longest time for which another process
    /// can read values after an erasure.
    pub fn with_cache(
        store: impl KeyStore,
        wrapper: impl KeyWrapper,
        capacity: NonZeroUsize,
        lifetime: Duration,
    ) -> Self {
        let cache = KeyCache::new(capacity, lifetime);
        Self(Arc::new(Inner { cache, lifetime, source: Box::new(StoreSource { store, wrapper }) }))
    }

    /// Erases a subject: records the erasure and destroys the key. Returns the recorded erasure: this one, or
    /// an earlier one.
    ///
    /// `erased_by` is the person or program that orders the erasure, for the audit record.
    ///
    /// From then on, the subject's values are decoded as [`Personal::Erased`](crate::Personal::Erased): at
    /// once by this handle and its clones, and by other processes when their keys in memory have expired. The
    /// [crate's documentation](crate) says what an erasure does not reach.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if `erased_by` has a NUL; any error of the key store, after which
    /// the call is repeated.
    ///
    /// # Cancel safety
    /// Cancel safe: the subject is erased or not.
    pub async fn erase(
        &self,
        subject: impl Into<Subject>,
        erased_by: impl Into<String>,
    ) -> Result<Erasure, PersistenceError> {
        let erasure = Erasure::now(subject, erased_by);
        verify_erased_by(&erasure.erased_by)?;
        let erasure = self.0.source.erase(erasure).await?;
        self.0.cache.insert(Instant::now(), [(erasure.subject.clone(), SubjectState::Erased)]);
        Ok(erasure)
    }

    /// Returns the erasure of a subject; `None` if it is not erased. Reads the key store.
    ///
    /// # Errors
    /// Any error of the key store.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn erasure(&self, subject: &Subject) -> Result<Option<Erasure>, PersistenceError> {
        self.0.source.erasure(subject.clone()).await
    }

    /// Returns the state of a subject. If it is not in memory, it is noted as missing.
    pub(crate) fn state(&self, subject: &Subject, lookup: Lookup) -> Option<Arc<SubjectState>> {
        self.0.cache.state(subject, lookup)
    }

    /// Loads all that is missing.
    pub(crate) async fn load_missing(&self) -> Result<(), PersistenceError> {
        let missing = self.0.cache.take_missing();
        if missing.is_empty() {
            return Ok(());
        }
        let requested_at = Instant::now();
        let states = self.0.source.load(missing).await?;
        self.0.cache.insert(requested_at, states);
        Ok(())
    }
}

/// A key store and a wrapper, object-safe.
trait Source: fmt::Debug + Send + Sync {
    fn load(&self, missing: BTreeMap<Subject, Lookup>) -> BoxFuture<'_, Vec<(Subject, SubjectState)>>;
    fn erase(&self, erasure: Erasure) -> BoxFuture<'_, Erasure>;
    fn erasure(&self, subject: Subject) -> BoxFuture<'_, Option<Erasure>>;
}

#[derive(Debug)]
struct StoreSource<S, W> {
    store: S,
    wrapper: W,
}

impl<S: KeyStore, W: KeyWrapper> Source for StoreSource<S, W> {
    fn load(&self, missing: BTreeMap<Subject, Lookup>) -> BoxFuture<'_, Vec<(Subject, SubjectState)>> {
        Box::pin(self.load(missing))
    }

    fn erase(&self, erasure: Erasure) -> BoxFuture<'_, Erasure> {
        Box::pin(self.store.erase(erasure))
    }

    fn erasure(&self, subject: Subject) -> BoxFuture<'_, Option<Erasure>> {
        Box::pin(async move {
            let records = self.store.select(&[subject]).await?;
            Ok(records.into_iter().find_map(|record| match record {
                KeyRecord::Erased(erasure) => Some(erasure),
                KeyRecord::Key(_) => None,
            }))
        })
    }
}

impl<S: KeyStore, W: KeyWrapper> StoreSource<S, W> {
    async fn load(
        &self,
        mut missing: BTreeMap<Subject, Lookup>,
    ) -> Result<Vec<(Subject, SubjectState)>, PersistenceError> {
        let subjects: Vec<Subject> = missing.keys().cloned().collect();
        let mut records = self.store.select(&subjects).await?;
        for record in &records {
            missing.remove(record.subject());
        }
        let (new, absent): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|(_, lookup)| *lookup == Lookup::OrCreate);
        if !new.is_empty() {
            let new: Vec<Subject> = new.into_iter().map(|(subject, _)| subject).collect();
            records.append(&mut self.create(new).await?);
        }
        let mut states = self.unwrap(records).await?;
        states.extend(absent.into_iter().map(|(subject, _)| (subject, SubjectState::Absent)));
        Ok(states)
    }

    /// Creates keys; returns the records of the subjects, which another process may have made at the same
    /// time.
    async fn create(&self, subjects: Vec<Subject>) -> Result<Vec<KeyRecord>, PersistenceError> {
        let create = |subject: &Subject| Ok((subject.clone(), AesKey::random(KEY_BYTES)?));
        let keys: Vec<_> = subjects.iter().map(create).collect::<Result<_, PersistenceError>>()?;
        let wrapped = self.wrapper.wrap(&keys).await?;
        if !wrapped.iter().map(|key| &key.subject).eq(&subjects) {
            return Err(PersistenceError::programming(
                "a key wrapper did not wrap each of the keys, in their order",
            ));
        }
        self.store.insert(wrapped).await?;
        self.store.select(&subjects).await
    }

    async fn unwrap(
        &self,
        records: Vec<KeyRecord>,
    ) -> Result<Vec<(Subject, SubjectState)>, PersistenceError> {
        let mut states = Vec::with_capacity(records.len());
        let mut wrapped: Vec<WrappedKey> = Vec::with_capacity(records.len());
        for record in records {
            match record {
                KeyRecord::Key(key) => wrapped.push(key),
                KeyRecord::Erased(erasure) => states.push((erasure.subject, SubjectState::Erased)),
            }
        }
        let keys = self.wrapper.unwrap(&wrapped).await?;
        if keys.len() != wrapped.len() {
            return Err(PersistenceError::programming(format!(
                "a key wrapper has {} results for {} keys",
                keys.len(),
                wrapped.len()
            )));
        }
        for (WrappedKey { subject, .. }, key) in wrapped.into_iter().zip(keys) {
            let state = match key {
                Ok(key) if key.as_bytes().len() == KEY_BYTES => SubjectState::Key(Sealer::new(&key)),
                Ok(key) => SubjectState::Failed(PersistenceError::data(format!(
                    "the unwrapped key of data subject {subject:?} is an {key:?}, and has to have 256 bits"
                ))),
                Err(error) => SubjectState::Failed(error),
            };
            states.push((subject, state));
        }
        Ok(states)
    }
}

impl fmt::Debug for SubjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectKeys")
            .field("source", &self.0.source)
            .field("lifetime", &self.0.lifetime)
            .finish_non_exhaustive()
    }
}

//! The rotation of the keys that wrap: which of them a key store needs, and its rewrapping.

use es_core::PersistenceError;
use es_crypto::{KeyRing, KeyUsage};

use crate::{KeyReplacement, KeyStore, Subject, WrappedKey, wrapper::rewrap};

/// The number of keys of a page: one transaction.
const PAGE_SIZE: usize = 500;

/// Wraps the keys of a store again, with the primary key of a ring, while the store is in use.
///
/// Every process that uses the store must have a ring with the new primary key, and wrap new keys with it.
/// Keys that are wrapped with it already are left as they are, and subjects that are erased in the meantime
/// stay erased. It can be interrupted at any point, and repeated. The keys of the subjects do not change.
///
/// A ring's key can be removed if neither the states ([`KeyUsage::of`]) nor the key store
/// ([`usage`](Self::usage)) need it.
#[derive(Debug)]
pub struct Rewrapping<'a, S> {
    store: &'a S,
    ring: &'a KeyRing,
    after: Option<Subject>,
}

/// A page of a [`Rewrapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewrappedPage {
    /// The number of keys that were read.
    pub read: usize,
    /// The number of keys that were wrapped again.
    pub replaced: usize,
}

impl<'a, S: KeyStore> Rewrapping<'a, S> {
    /// A rewrapping of all keys of a store.
    pub fn new(store: &'a S, ring: &'a KeyRing) -> Self {
        Self { store, ring, after: None }
    }

    /// Wraps the keys of the next page again; returns `None` after the last one.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if a key cannot be unwrapped by the ring, which names its subject;
    /// any error of the store. The next call tries the same page again. If the key is damaged, the values of
    /// the subject are lost: erase it, and continue.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_page(&mut self) -> Result<Option<RewrappedPage>, PersistenceError> {
        let keys = self.store.select_keys(self.after.clone(), PAGE_SIZE).await?;
        let Some(last) = keys.last().map(|key| key.subject.clone()) else { return Ok(None) };
        let read = keys.len();
        let primary = Some(self.ring.primary_key_id());
        let outdated = keys.into_iter().filter(|key| KeyRing::key_id(&key.key) != primary);
        let replacement = |current: WrappedKey| {
            let replacement = rewrap(self.ring, &current)?;
            Ok(KeyReplacement { current, replacement })
        };
        let replacements: Vec<_> = outdated.map(replacement).collect::<Result<_, PersistenceError>>()?;
        let replaced = match replacements.len() {
            0 => 0,
            _ => self.store.replace_keys(replacements).await?,
        };
        self.after = Some(last);
        Ok(Some(RewrappedPage { read, replaced }))
    }

    /// Counts the keys of a store by the key of the ring that wraps them. All of them are read, in pages.
    ///
    /// # Errors
    /// Any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn usage(store: &S) -> Result<KeyUsage, PersistenceError> {
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let keys = store.select_keys(after, PAGE_SIZE).await?;
            let Some(last) = keys.last() else { return Ok(ids.into_iter().collect()) };
            after = Some(last.subject.clone());
            ids.extend(keys.iter().map(|key| KeyRing::key_id(&key.key)));
        }
    }
}

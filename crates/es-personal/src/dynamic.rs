//! The object-safe version of key stores, for a store that is chosen at run time.

use std::{fmt::Debug, sync::Arc};

use es_core::{BoxFuture, PersistenceError};

use crate::{Erasure, KeyRecord, KeyReplacement, KeyStore, Subject, WrappedKey};

/// The object-safe version of [`KeyStore`], which every key store has. `Arc<dyn DynKeyStore>` is a key store
/// again.
pub trait DynKeyStore: Debug + Send + Sync + 'static {
    /// See [`KeyStore::select`].
    fn select_dyn<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<KeyRecord>>;
    /// See [`KeyStore::insert`].
    fn insert_dyn(&self, keys: Vec<WrappedKey>) -> BoxFuture<'_, ()>;
    /// See [`KeyStore::erase`].
    fn erase_dyn(&self, erasure: Erasure) -> BoxFuture<'_, Erasure>;
    /// See [`KeyStore::select_keys`].
    fn select_keys_dyn(&self, after: Option<Subject>, limit: usize) -> BoxFuture<'_, Vec<WrappedKey>>;
    /// See [`KeyStore::replace_keys`].
    fn replace_keys_dyn(&self, replacements: Vec<KeyReplacement>) -> BoxFuture<'_, usize>;
    /// See [`KeyStore::select_erasures`].
    fn select_erasures_dyn(&self, after: Option<Subject>, limit: usize) -> BoxFuture<'_, Vec<Erasure>>;
}

impl<S: KeyStore> DynKeyStore for S {
    fn select_dyn<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<KeyRecord>> {
        Box::pin(self.select(subjects))
    }

    fn insert_dyn(&self, keys: Vec<WrappedKey>) -> BoxFuture<'_, ()> {
        Box::pin(self.insert(keys))
    }

    fn erase_dyn(&self, erasure: Erasure) -> BoxFuture<'_, Erasure> {
        Box::pin(self.erase(erasure))
    }

    fn select_keys_dyn(&self, after: Option<Subject>, limit: usize) -> BoxFuture<'_, Vec<WrappedKey>> {
        Box::pin(self.select_keys(after, limit))
    }

    fn replace_keys_dyn(&self, replacements: Vec<KeyReplacement>) -> BoxFuture<'_, usize> {
        Box::pin(self.replace_keys(replacements))
    }

    fn select_erasures_dyn(&self, after: Option<Subject>, limit: usize) -> BoxFuture<'_, Vec<Erasure>> {
        Box::pin(self.select_erasures(after, limit))
    }
}

impl KeyStore for Arc<dyn DynKeyStore> {
    async fn select(&self, subjects: &[Subject]) -> Result<Vec<KeyRecord>, PersistenceError> {
        (**self).select_dyn(subjects).await
    }

    async fn insert(&self, keys: Vec<WrappedKey>) -> Result<(), PersistenceError> {
        (**self).insert_dyn(keys).await
    }

    async fn erase(&self, erasure: Erasure) -> Result<Erasure, PersistenceError> {
        (**self).erase_dyn(erasure).await
    }

    async fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<WrappedKey>, PersistenceError> {
        (**self).select_keys_dyn(after, limit).await
    }

    async fn replace_keys(&self, replacements: Vec<KeyReplacement>) -> Result<usize, PersistenceError> {
        (**self).replace_keys_dyn(replacements).await
    }

    async fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> Result<Vec<Erasure>, PersistenceError> {
        (**self).select_erasures_dyn(after, limit).await
    }
}

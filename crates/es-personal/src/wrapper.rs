//! The wrapping of keys.

use std::{fmt::Debug, future::Future};

use es_core::{Bytes, Cipher, EventContext, PersistenceError, Topic, uuid::Uuid};
use es_crypto::{AesKey, KeyRing};
use zeroize::Zeroizing;

use crate::{Subject, WrappedKey};

/// Wraps the keys of data subjects for the key store: a [`KeyRing`], or a key management service.
pub trait KeyWrapper: Debug + Send + Sync + 'static {
    /// Wraps new keys, bound to their subjects.
    ///
    /// # Errors
    /// If keys cannot be wrapped now.
    fn wrap(
        &self,
        keys: &[(Subject, AesKey)],
    ) -> impl Future<Output = Result<Vec<WrappedKey>, PersistenceError>> + Send;

    /// Unwraps keys: one result for each, in the same order.
    ///
    /// # Errors
    /// If keys cannot be unwrapped now. The result of a single key is an error if it was wrapped for another
    /// subject, or has been changed.
    fn unwrap(
        &self,
        keys: &[WrappedKey],
    ) -> impl Future<Output = Result<Vec<Result<AesKey, PersistenceError>>, PersistenceError>> + Send;
}

/// A wrapped key is an envelope of the ring, for the originator of zeros, version 0 and the topic
/// `personal-key:SUBJECT`.
impl KeyWrapper for KeyRing {
    async fn wrap(&self, keys: &[(Subject, AesKey)]) -> Result<Vec<WrappedKey>, PersistenceError> {
        keys.iter().map(|(subject, key)| wrap(self, subject, key)).collect()
    }

    async fn unwrap(
        &self,
        keys: &[WrappedKey],
    ) -> Result<Vec<Result<AesKey, PersistenceError>>, PersistenceError> {
        Ok(keys.iter().map(|key| unwrap(self, key)).collect())
    }
}

/// Wraps a key again, with the primary key of a ring.
pub(crate) fn rewrap(ring: &KeyRing, key: &WrappedKey) -> Result<WrappedKey, PersistenceError> {
    wrap(ring, &key.subject, &unwrap(ring, key)?)
}

fn wrap(ring: &KeyRing, subject: &Subject, key: &AesKey) -> Result<WrappedKey, PersistenceError> {
    let mut wrapped = Vec::new();
    ring.encrypt(&context(&topic(subject)), key.as_bytes(), &mut wrapped)?;
    Ok(WrappedKey { subject: subject.clone(), key: Bytes::from(wrapped) })
}

fn unwrap(ring: &KeyRing, WrappedKey { subject, key }: &WrappedKey) -> Result<AesKey, PersistenceError> {
    // Of sufficient size: growing would leave a copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(key.len()));
    ring.decrypt(&context(&topic(subject)), key, &mut plain)
        .and_then(|()| AesKey::from_bytes(&plain))
        .map_err(|error| error.with_context(format_args!("the key of data subject {subject:?}")))
}

fn topic(subject: &Subject) -> Topic {
    Topic::from_stored(format!("personal-key:{subject}"))
}

fn context(topic: &Topic) -> EventContext<'_> {
    EventContext { originator_id: Uuid::nil(), originator_version: 0, topic }
}

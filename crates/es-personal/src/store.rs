//! The store of the keys of data subjects.

use std::{fmt::Debug, future::Future};

use es_core::{Bytes, PersistenceError, time::OffsetDateTime};

use crate::Subject;

/// Stores the wrapped keys of data subjects, and their erasures.
///
/// A subject has no record, or a wrapped key, or an erasure; an erasure is never replaced. Keep the store in
/// another database than the log, with backups of its own that are kept for a short time: a backup that has
/// the key of an erased subject restores its values.
pub trait KeyStore: Debug + Send + Sync + 'static {
    /// Returns the records of these subjects, in any order; none for a subject without a record.
    ///
    /// # Errors
    /// If the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select(
        &self,
        subjects: &[Subject],
    ) -> impl Future<Output = Result<Vec<KeyRecord>, PersistenceError>> + Send;

    /// Stores wrapped keys. A subject that has a record keeps it, also if another process stores it at the
    /// same time.
    ///
    /// # Errors
    /// If the store cannot be written.
    ///
    /// # Cancel safety
    /// Cancel safe: each key is stored or not.
    fn insert(&self, keys: Vec<WrappedKey>) -> impl Future<Output = Result<(), PersistenceError>> + Send;

    /// Records an erasure and destroys the wrapped key of its subject, if it has one, in one transaction.
    /// Returns the recorded erasure: this one, or an earlier one.
    ///
    /// # Errors
    /// If the store cannot be written, or the key is recorded as erased, but its bytes cannot be removed now.
    /// Repeat the call then.
    ///
    /// # Cancel safety
    /// Cancel safe: the subject is erased or not.
    fn erase(&self, erasure: Erasure) -> impl Future<Output = Result<Erasure, PersistenceError>> + Send;

    /// Returns at most `limit` wrapped keys of subjects after one, ordered by subject; all of them in pages.
    ///
    /// # Errors
    /// If the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select_keys(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<WrappedKey>, PersistenceError>> + Send;

    /// Replaces wrapped keys in one transaction, each if its subject still has the current one. Returns the
    /// number of replaced keys.
    ///
    /// # Errors
    /// If the store cannot be written.
    ///
    /// # Cancel safety
    /// Cancel safe: all of them are replaced or none.
    fn replace_keys(
        &self,
        replacements: Vec<KeyReplacement>,
    ) -> impl Future<Output = Result<usize, PersistenceError>> + Send;

    /// Returns at most `limit` erasures of subjects after one, ordered by subject; all of them in pages.
    ///
    /// # Errors
    /// If the store cannot be read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn select_erasures(
        &self,
        after: Option<Subject>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Erasure>, PersistenceError>> + Send;
}

/// A record of a key store.
#[derive(Clone, Debug, PartialEq, Eq)]
// Exhaustive: implementors of other stores make these.
pub enum KeyRecord {
    /// The subject has a key.
    Key(WrappedKey),
    /// The subject is erased.
    Erased(Erasure),
}

/// The wrapped key of a data subject. `Debug` shows its subject only.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The data subject.
    pub subject: Subject,
    /// The wrapped key.
    pub key: Bytes,
}

/// A wrapped key of a subject, and the one that takes its place. `Debug` shows the subject only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyReplacement {
    /// The key that the subject must still have.
    pub current: WrappedKey,
    /// The same key, wrapped again.
    pub replacement: WrappedKey,
}

/// The audit record of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The data subject.
    pub subject: Subject,
    /// The time of the erasure, in whole microseconds.
    pub erased_at: OffsetDateTime,
    /// The person or program that ordered the erasure, or its reason.
    pub erased_by: String,
}

impl Erasure {
    /// The erasure of a subject at this time.
    pub fn now(subject: impl Into<Subject>, erased_by: impl Into<String>) -> Self {
        let now = OffsetDateTime::now_utc();
        // In range: it is the microsecond of a time.
        let erased_at = now.replace_microsecond(now.microsecond()).unwrap_or(now);
        Self { subject: subject.into(), erased_at, erased_by: erased_by.into() }
    }
}

/// Verifies that every store can have a text as the name of an erasure.
///
/// # Errors
/// [`Data`](es_core::ErrorKind::Data) if it has a NUL, which PostgreSQL does not store.
pub(crate) fn verify_erased_by(erased_by: &str) -> Result<(), PersistenceError> {
    match erased_by.contains('\0') {
        true => Err(PersistenceError::data("the person or program that orders an erasure has a NUL")),
        false => Ok(()),
    }
}

impl KeyRecord {
    /// Returns the data subject.
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Key(key) => &key.subject,
            Self::Erased(erasure) => &erasure.subject,
        }
    }
}

impl Debug for WrappedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WrappedKey").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Returns the microseconds from the Unix epoch until the erasure.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn unix_microseconds(erasure: &Erasure) -> i64 {
    // In range: the years of the type have at most four digits.
    i64::try_from(erasure.erased_at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// Returns the record of a row: its subject, wrapped key, time and name of the erasure.
///
/// # Errors
/// [`Data`](es_core::ErrorKind::Data) if it has neither a key nor an erasure, or an invalid subject or time.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn record_of_row(
    subject: String,
    key: Option<Vec<u8>>,
    erased_at: Option<i64>,
    erased_by: Option<String>,
) -> Result<KeyRecord, PersistenceError> {
    let subject = Subject::new(subject)?;
    match (key, erased_at, erased_by) {
        (Some(key), None, None) => Ok(KeyRecord::Key(WrappedKey { subject, key: Bytes::from(key) })),
        (None, Some(erased_at), Some(erased_by)) => {
            let erased_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(erased_at) * 1_000)
                .map_err(|error| {
                    PersistenceError::data("the time of an erasure is out of range").with_source(error)
                })?;
            Ok(KeyRecord::Erased(Erasure { subject, erased_at, erased_by }))
        }
        _ => Err(PersistenceError::data(format!(
            "the record of data subject {subject:?} is neither a key nor an erasure"
        ))),
    }
}

/// Returns the wrapped keys among records.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn keys(records: Vec<KeyRecord>) -> Vec<WrappedKey> {
    let key = |record| match record {
        KeyRecord::Key(key) => Some(key),
        KeyRecord::Erased(_) => None,
    };
    records.into_iter().filter_map(key).collect()
}

/// Returns the erasures among records.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) fn erasures(records: Vec<KeyRecord>) -> Vec<Erasure> {
    let erasure = |record| match record {
        KeyRecord::Erased(erasure) => Some(erasure),
        KeyRecord::Key(_) => None,
    };
    records.into_iter().filter_map(erasure).collect()
}

//! Answers in a form that can be compared.

use std::collections::HashSet;

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent};

/// What an error says to a program; its words are each datastore's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: ErrorKind,
    pub(super) conflict: Option<Conflict>,
    is_transient: bool,
}

impl From<PersistenceError> for Refusal {
    fn from(error: PersistenceError) -> Self {
        Self { kind: error.kind(), conflict: error.conflict().cloned(), is_transient: error.is_transient() }
    }
}

/// An answer whose error is reduced to what it says to a program.
pub(super) fn told<T>(answer: Result<T, PersistenceError>) -> Result<T, Refusal> {
    answer.map_err(Refusal::from)
}

/// Whether both answers to an insertion are the same.
///
/// A batch that is at odds with itself can be refused without a look at what is recorded: it may name
/// an event that stands in it twice, whatever else collides.
pub(super) fn is_same(
    events: &[StoredEvent],
    tested: &Result<Vec<i64>, Refusal>,
    expected: &Result<Vec<i64>, Refusal>,
) -> bool {
    let (Err(tested), Err(expected)) = (tested, expected) else { return tested == expected };
    if tested == expected {
        return true;
    }
    let Some(Conflict::Version { originator_id, originator_version }) = tested.conflict else { return false };
    let mut seen = HashSet::new();
    let mut repeated = events.iter().map(|event| (event.originator_id, event.originator_version));
    let is_repeated =
        repeated.any(|place| !seen.insert(place) && place == (originator_id, originator_version));
    is_repeated && Refusal { conflict: expected.conflict.clone(), ..tested.clone() } == *expected
}

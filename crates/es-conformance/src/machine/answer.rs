//! Results in a form that can be compared.

use std::collections::HashSet;

use es_core::{
    AggregateRecorder, Conflict, ErrorKind, EventRange, PersistenceError, StoredEvent, uuid::Uuid,
};

/// The comparable part of an error; the message is specific to a datastore.
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

/// Returns the result with its error reduced to the comparable part.
pub(super) fn comparable<T>(answer: Result<T, PersistenceError>) -> Result<T, Refusal> {
    answer.map_err(Refusal::from)
}

/// Returns true if both results of an insertion under concurrent writes are equal. If several events
/// conflict, the error may name any of them.
pub(super) async fn is_same_among_others(
    oracle: &impl AggregateRecorder,
    events: &[StoredEvent],
    tested: &Result<Vec<i64>, Refusal>,
    expected: &Result<Vec<i64>, Refusal>,
) -> bool {
    if tested == expected {
        return true;
    }
    if !matches!(expected, Err(Refusal { conflict: Some(Conflict::Version { .. }), .. })) {
        return false;
    }
    let mut taken = HashSet::new();
    for event in events {
        let recorded = oracle.select_events(event.originator_id, EventRange::all()).await;
        taken.extend(recorded.expect("the oracle should be readable").iter().map(place));
    }
    is_named_instead(events.iter().map(place).filter(|place| taken.contains(place)), tested, expected)
}

/// Returns true if both are refused with equal errors, except that this one names one of these versions.
fn is_named_instead(
    mut colliding: impl Iterator<Item = (Uuid, i64)>,
    tested: &Result<Vec<i64>, Refusal>,
    expected: &Result<Vec<i64>, Refusal>,
) -> bool {
    let (Err(tested), Err(expected)) = (tested, expected) else { return false };
    let Some(Conflict::Version { originator_id, originator_version }) = tested.conflict else { return false };
    colliding.any(|place| place == (originator_id, originator_version))
        && Refusal { conflict: expected.conflict.clone(), ..tested.clone() } == *expected
}

fn place(event: &StoredEvent) -> (Uuid, i64) {
    (event.originator_id, event.originator_version)
}

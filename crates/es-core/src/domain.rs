//! Events as a program sees them.

use serde::ser::SerializeMap;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{PersistenceError, StateReader, Topic, Transcoder};

/// An event of an aggregate: where it stands, when it happened, and what happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainEvent<E> {
    /// The aggregate that the event belongs to.
    pub originator_id: Uuid,
    /// The event's position in the aggregate's sequence; the first is 1 by convention.
    pub originator_version: i64,
    /// When the event happened.
    pub timestamp: OffsetDateTime,
    /// What happened.
    pub payload: E,
}

impl<E> DomainEvent<E> {
    /// An event that happens now.
    ///
    /// The clock is read to the microsecond, which is what is stored, so that an event equals
    /// itself when it is read back.
    pub fn new(originator_id: Uuid, originator_version: i64, payload: E) -> Self {
        let now = OffsetDateTime::now_utc();
        let whole_microseconds = now.microsecond() * 1_000;
        // Always within range, and if it were not, the clock's own reading is as good.
        let timestamp = now.replace_nanosecond(whole_microseconds).unwrap_or(now);
        Self { originator_id, originator_version, timestamp, payload }
    }

    /// An event that happened at a time of the caller's, in whole microseconds: a transcoder may
    /// refuse what is finer.
    pub fn at(originator_id: Uuid, originator_version: i64, timestamp: OffsetDateTime, payload: E) -> Self {
        Self { originator_id, originator_version, timestamp, payload }
    }
}

/// The version after `version`.
///
/// # Errors
/// [`Data`](crate::ErrorKind::Data) when `version` is the last that a `bigint` holds.
pub fn next_version(version: i64) -> Result<i64, PersistenceError> {
    version.checked_add(1).ok_or_else(|| {
        PersistenceError::data(format!("originator version {version} is the last that a bigint holds"))
    })
}

/// What happened: a type whose values can be stored and found again by topic.
///
/// `#[derive(Event)]` implements it for structs (one topic) and enums (one topic per variant); the
/// [crate documentation](crate) shows one written by hand.
///
/// The state of an event is a flat object: `timestamp` first, then what [`encode`](Self::encode)
/// writes, then `class_version` when that is 2 or more. `timestamp`, `originator_id`,
/// `originator_version` and `class_version` are therefore no names for attributes of its own.
pub trait Event: Sized + Send + Sync + 'static {
    /// Every topic that [`decode`](Self::decode) knows, old names included: what a
    /// [selection of notifications](crate::NotificationSelection::topics) of these events asks for.
    const TOPICS: &[Topic];

    /// The topic that this value is stored under.
    fn topic(&self) -> Topic;

    /// The version of the layout that [`encode`](Self::encode) writes; 1 unless it has changed.
    fn class_version(&self) -> u32 {
        1
    }

    /// Writes the attributes, without timestamp, id and versions;
    /// [`encode_attributes`](crate::encode_attributes) does it for what derives `Serialize`.
    ///
    /// # Errors
    /// What the serializer fails with.
    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error>;

    /// Reads an event that was stored under `topic`, upcasting what an older
    /// [class version](StateReader::class_version) wrote.
    ///
    /// # Errors
    /// [`StateReader::unknown_topic`] for a topic that is not this type's; what decoding fails with.
    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError>;
}

//! Domain events.

use serde::ser::SerializeMap;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Metadata, PersistenceError, StateReader, Topic, Transcoder};

/// An event of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DomainEvent<E> {
    /// The aggregate that the event belongs to.
    pub originator_id: Uuid,
    /// The event's position in the aggregate's sequence; the first is 1 by convention.
    pub originator_version: i64,
    /// When the event happened.
    pub timestamp: OffsetDateTime,
    /// Where the event comes from; empty by default.
    pub metadata: Metadata,
    /// The event of the domain.
    pub payload: E,
}

impl<E> DomainEvent<E> {
    /// An event with the current time as its timestamp.
    ///
    /// The timestamp has whole microseconds, as it is stored, so that an event is equal after it is read
    /// back.
    pub fn new(originator_id: Uuid, originator_version: i64, payload: E) -> Self {
        let now = OffsetDateTime::now_utc();
        let whole_microseconds = now.microsecond() * 1_000;
        // Always within range; if it were not, the unrounded time would do.
        let timestamp = now.replace_nanosecond(whole_microseconds).unwrap_or(now);
        Self::at(originator_id, originator_version, timestamp, payload)
    }

    /// An event with a given timestamp, in whole microseconds: a transcoder may refuse nanoseconds.
    pub fn at(originator_id: Uuid, originator_version: i64, timestamp: OffsetDateTime, payload: E) -> Self {
        Self { originator_id, originator_version, timestamp, metadata: Metadata::new(), payload }
    }

    /// Sets the metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Returns the id of the event, for causation ids and idempotency keys: the id of the aggregate, a
    /// slash and the version, such as `0190a5c4-7b1e-7cc3-98c4-dc0c0c07398f/3`.
    pub fn event_id(&self) -> String {
        format!("{}/{}", self.originator_id, self.originator_version)
    }
}

impl Metadata {
    /// The metadata of what follows from an event: its correlation id, or its [id](DomainEvent::event_id) if
    /// it has none, and its id as the causation id.
    ///
    /// ```
    /// use es_core::{DomainEvent, Metadata, uuid::Uuid};
    ///
    /// let placed = DomainEvent::new(Uuid::nil(), 1, "placed");
    /// let reserved = DomainEvent::new(Uuid::nil(), 2, "reserved").with_metadata(Metadata::caused_by(&placed));
    /// let shipped = Metadata::caused_by(&reserved);
    /// assert_eq!(shipped.correlation_id(), Some("00000000-0000-0000-0000-000000000000/1"));
    /// assert_eq!(shipped.causation_id(), Some("00000000-0000-0000-0000-000000000000/2"));
    /// ```
    pub fn caused_by<E>(event: &DomainEvent<E>) -> Self {
        let id = event.event_id();
        let correlation_id = event.metadata.correlation_id().map_or_else(|| id.clone(), str::to_owned);
        Self::new().with_correlation_id(correlation_id).with_causation_id(id)
    }
}

/// Returns the version after `version`.
///
/// # Errors
/// [`Data`](crate::ErrorKind::Data) if `version` is the last that a `bigint` holds.
pub fn next_version(version: i64) -> Result<i64, PersistenceError> {
    version.checked_add(1).ok_or_else(|| {
        PersistenceError::data(format!("originator version {version} is the last that a bigint holds"))
    })
}

/// A type whose values can be stored as events, and decoded by topic.
///
/// `#[derive(Event)]` implements it for structs (one topic) and enums (one topic per variant); the
/// [crate documentation](crate) shows one written by hand.
///
/// The state of an event is a flat object: `timestamp` first, then what [`encode`](Self::encode)
/// writes, then `class_version` when that is 2 or more, then `_metadata_` if there is any. `timestamp`,
/// `originator_id`, `originator_version`, `class_version` and `_metadata_` are therefore not allowed as names
/// of attributes.
pub trait Event: Sized + Send + Sync + 'static {
    /// All topics that [`decode`](Self::decode) accepts, old names included: the topics for a
    /// [selection](crate::NotificationSelection::topics) of the notifications of these events. The derive
    /// also makes a constant for each written topic, such as `AccountEvent::OPENED`.
    const TOPICS: &[Topic];

    /// Returns the topic of this value.
    fn topic(&self) -> Topic;

    /// Returns the version of the layout that [`encode`](Self::encode) writes; 1 unless it has changed.
    fn class_version(&self) -> u32 {
        1
    }

    /// Writes the attributes, without timestamp, id and versions;
    /// [`encode_attributes`](crate::encode_attributes) implements it for types that derive `Serialize`.
    ///
    /// # Errors
    /// Any error of the serializer.
    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error>;

    /// Decodes an event that was stored under `topic`, and upcasts older
    /// [class versions](StateReader::class_version).
    ///
    /// # Errors
    /// [`StateReader::unknown_topic`] for a topic that is not in [`TOPICS`](Self::TOPICS); any error of
    /// decoding.
    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError>;
}

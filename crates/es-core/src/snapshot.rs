//! Snapshots: the state of an aggregate at a version, stored as an event.

use serde::{Deserialize, Serialize, de::DeserializeOwned, ser::SerializeMap};

use crate::{Event, PersistenceError, StateReader, Topic, Transcoder};

/// The state of an aggregate that can be stored in a [`Snapshot`].
pub trait SnapshotState: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The topic of the aggregate type, such as `bank:Account`.
    const AGGREGATE_TOPIC: &str;
    /// The topic of the snapshots; by default that of the Python library.
    const SNAPSHOT_TOPIC: &str = "eventsourcing.domain:Snapshot";
}

/// The payload of a snapshot. A [`DomainEvent<Snapshot<S>>`](crate::DomainEvent) is stored in a table of
/// its own, with the version of the last event that is applied to its state.
///
/// Store snapshots in an [`EventStore`](crate::EventStore) over an aggregate recorder for the purpose
/// `snapshots`; the newest is `EventRange::all().desc().limit(1)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<S> {
    /// The aggregate's state.
    pub state: S,
}

impl<S: SnapshotState> Event for Snapshot<S> {
    const TOPICS: &[Topic] = &[Topic::from_static(S::SNAPSHOT_TOPIC)];

    fn topic(&self) -> Topic {
        Topic::from_static(S::SNAPSHOT_TOPIC)
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        state.serialize_entry("topic", S::AGGREGATE_TOPIC)?;
        state.serialize_entry("state", &self.state)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if topic != S::SNAPSHOT_TOPIC {
            return Err(state.unknown_topic());
        }
        let attributes: Attributes<S> = state.decode()?;
        if attributes.topic != S::AGGREGATE_TOPIC {
            return Err(PersistenceError::data(format!(
                "the snapshot is of aggregate type {:?}, not {:?}",
                attributes.topic,
                S::AGGREGATE_TOPIC
            )));
        }
        Ok(Self { state: attributes.state })
    }
}

#[derive(Deserialize)]
#[serde(bound = "S: SnapshotState")]
struct Attributes<S> {
    topic: String,
    state: S,
}

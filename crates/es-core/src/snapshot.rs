//! Snapshots: the state of an aggregate at a version, stored as an event.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

use crate::{
    Event, PersistenceError, StateReader, Topic, Transcoder,
    state::{CLASS_VERSION, Key},
};

/// The state of an aggregate that can be stored in a [`Snapshot`].
pub trait SnapshotState: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The topic of the aggregate type, such as `bank:Account`.
    const AGGREGATE_TOPIC: &str;
    /// The topic of the snapshots; by default that of the Python library.
    const SNAPSHOT_TOPIC: &str = "eventsourcing.domain:Snapshot";
    /// The version of the state's layout, and of the code that computes it from events. A version of 2 or
    /// more is stored in the state as `class_version`, as by the Python library; the state is then a struct
    /// or a map that accepts this attribute.
    const CLASS_VERSION: u32 = 1;

    /// Decodes a state of another class version. By default there are none.
    ///
    /// ```
    /// use es_core::{PersistenceError, SnapshotState, StateReader, Transcoder, serde};
    ///
    /// #[derive(serde::Deserialize)]
    /// # #[serde(crate = "es_core::serde")]
    /// struct AccountV1 {
    ///     euros: i64,
    /// }
    ///
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// # #[serde(crate = "es_core::serde")]
    /// struct Account {
    ///     cents: i64,
    /// }
    ///
    /// impl SnapshotState for Account {
    ///     const AGGREGATE_TOPIC: &str = "bank:Account";
    ///     const CLASS_VERSION: u32 = 2;
    ///
    ///     fn upcast<T: Transcoder>(
    ///         class_version: u32,
    ///         snapshot: &mut StateReader<'_, T>,
    ///     ) -> Result<Self, PersistenceError> {
    ///         match class_version {
    ///             1 => Ok(Self { cents: snapshot.decode_snapshot::<AccountV1>()?.euros * 100 }),
    ///             _ => Err(snapshot.unsupported_class_version(class_version)),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`StateReader::unsupported_class_version`] for an unknown class version; any error of decoding.
    fn upcast<T: Transcoder>(
        class_version: u32,
        snapshot: &mut StateReader<'_, T>,
    ) -> Result<Self, PersistenceError> {
        Err(snapshot.unsupported_class_version(class_version))
    }
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
        if S::CLASS_VERSION > 1 {
            return state.serialize_entry(
                "state",
                &Versioned { state: &self.state, class_version: S::CLASS_VERSION },
            );
        }
        state.serialize_entry("state", &self.state)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        if topic != S::SNAPSHOT_TOPIC {
            return Err(state.unknown_topic());
        }
        let header: Header = state.decode()?;
        if header.topic != S::AGGREGATE_TOPIC {
            return Err(PersistenceError::data(format!(
                "the snapshot is of aggregate type {:?}, not {:?}",
                header.topic,
                S::AGGREGATE_TOPIC
            )));
        }
        let ClassVersion(class_version) = header.state;
        let state = if class_version == S::CLASS_VERSION {
            state.decode_snapshot()?
        } else {
            S::upcast(class_version, state)?
        };
        Ok(Self { state })
    }
}

impl<T: Transcoder> StateReader<'_, T> {
    /// Decodes the aggregate's state from a snapshot.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the state is not an `S`.
    pub fn decode_snapshot<S: DeserializeOwned>(&mut self) -> Result<S, PersistenceError> {
        self.decode::<Attributes<S>>().map(|attributes| attributes.state)
    }
}

#[derive(Serialize)]
struct Versioned<'a, S> {
    #[serde(flatten)]
    state: &'a S,
    class_version: u32,
}

#[derive(Deserialize)]
struct Header {
    topic: String,
    state: ClassVersion,
}

#[derive(Deserialize)]
#[serde(bound = "S: DeserializeOwned")]
struct Attributes<S> {
    state: S,
}

/// The class version in a state; 1 if the state has none, or is not an object.
struct ClassVersion(u32);

impl<'de> Deserialize<'de> for ClassVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClassVersionVisitor).map(Self)
    }
}

struct ClassVersionVisitor;

impl<'de> Visitor<'de> for ClassVersionVisitor {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state of an aggregate")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut state: A) -> Result<u32, A::Error> {
        let mut class_version = 1;
        while let Some(Key(name)) = state.next_key()? {
            if name == CLASS_VERSION {
                class_version = state.next_value()?;
            } else {
                state.next_value::<IgnoredAny>()?;
            }
        }
        Ok(class_version)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut state: A) -> Result<u32, A::Error> {
        while state.next_element::<IgnoredAny>()?.is_some() {}
        Ok(1)
    }

    fn visit_bool<E>(self, _: bool) -> Result<u32, E> {
        Ok(1)
    }

    fn visit_i64<E>(self, _: i64) -> Result<u32, E> {
        Ok(1)
    }

    fn visit_u64<E>(self, _: u64) -> Result<u32, E> {
        Ok(1)
    }

    fn visit_f64<E>(self, _: f64) -> Result<u32, E> {
        Ok(1)
    }

    fn visit_str<E>(self, _: &str) -> Result<u32, E> {
        Ok(1)
    }

    fn visit_unit<E>(self) -> Result<u32, E> {
        Ok(1)
    }
}

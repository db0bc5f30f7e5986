//! The mapper between domain events and stored events.

use std::{borrow::Cow, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Bytes, Cipher, Compressor, DomainEvent, Event, EventContext, PersistenceError, StateReader, StoredEvent,
    Topic, Transcoder, state::METADATA,
};

/// The initial capacity for an encoded state, so that the buffer rarely grows.
const STATE_CAPACITY: usize = 512;

/// The number of times that one conversion is repeated after loading what it lacked. The second time it lacks
/// nothing, unless a bounded cache has dropped it in the meantime.
const MAX_LOADS: usize = 8;

/// Converts domain events to stored events and back: transcoder, then compressor, then cipher.
///
/// The synchronous methods fail with an [unloaded](PersistenceError::is_unloaded) error if the transcoder
/// lacks something that is loaded asynchronously, such as the key of a personal value. The asynchronous ones
/// load it, for all events of a call at once.
///
/// Cloning is cheap; compressor and cipher are shared.
///
/// ```
/// use es_core::{Cipher, Compressor, DomainEvent, Event, Mapper, PersistenceError, Transcoder};
///
/// fn round_trip<E: Event, T: Transcoder>(
///     transcoder: T,
///     compressor: impl Compressor,
///     cipher: impl Cipher,
///     event: &DomainEvent<E>,
/// ) -> Result<DomainEvent<E>, PersistenceError> {
///     let mapper = Mapper::new(transcoder).with_compressor(compressor).with_cipher(cipher);
///     let stored = mapper.to_stored_event(event)?;
///     mapper.to_domain_event(&stored)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Mapper<T> {
    transcoder: T,
    compressor: Option<Arc<dyn Compressor>>,
    cipher: Option<Arc<dyn Cipher>>,
}

impl<T: Transcoder> Mapper<T> {
    /// A mapper without compression and encryption.
    pub fn new(transcoder: T) -> Self {
        Self { transcoder, compressor: None, cipher: None }
    }

    /// Sets the compressor.
    #[must_use]
    pub fn with_compressor(mut self, compressor: impl Compressor) -> Self {
        self.compressor = Some(Arc::new(compressor));
        self
    }

    /// Sets the cipher, which encrypts after compression.
    #[must_use]
    pub fn with_cipher(mut self, cipher: impl Cipher) -> Self {
        self.cipher = Some(Arc::new(cipher));
        self
    }

    /// Returns the transcoder.
    pub fn transcoder(&self) -> &T {
        &self.transcoder
    }

    /// Converts a domain event to a stored event.
    ///
    /// # Errors
    /// Any error of the parts, with the event's context.
    pub fn to_stored_event<E: Event>(&self, event: &DomainEvent<E>) -> Result<StoredEvent, PersistenceError> {
        let mut stored = StoredEvent {
            originator_id: event.originator_id,
            originator_version: event.originator_version,
            topic: event.payload.topic(),
            state: Bytes::new(),
        };
        let context = stored.context();
        let state = self.write(&context, event).map_err(|error| error.with_event(&context))?;
        // Without the spare capacity, which a recorder in memory would never release.
        stored.state = Bytes::from(state.into_boxed_slice());
        Ok(stored)
    }

    /// Converts a stored event to a domain event.
    ///
    /// # Errors
    /// Any error of the parts, with the event's context: another key, damaged bytes, a topic that is not
    /// in `E::TOPICS`, a state that does not match `E`.
    pub fn to_domain_event<E: Event>(&self, event: &StoredEvent) -> Result<DomainEvent<E>, PersistenceError> {
        self.read(event).map_err(|error| error.with_event(&event.context()))
    }

    /// Converts domain events to stored events, and loads what the transcoder lacks.
    ///
    /// # Errors
    /// As [`to_stored_event`](Self::to_stored_event); any error of loading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn write_events<E: Event>(
        &self,
        events: &[DomainEvent<E>],
    ) -> Result<Vec<StoredEvent>, PersistenceError> {
        let mut stored = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            let following = || events[index + 1..].iter().for_each(|event| drop(self.to_stored_event(event)));
            stored.push(self.loading(|| self.to_stored_event(event), following).await?);
        }
        Ok(stored)
    }

    /// Converts a stored event to a domain event, and loads what the transcoder lacks.
    ///
    /// # Errors
    /// As [`to_domain_event`](Self::to_domain_event); any error of loading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_event<E: Event>(
        &self,
        event: &StoredEvent,
    ) -> Result<DomainEvent<E>, PersistenceError> {
        self.read_first(event, [].iter()).await
    }

    /// Converts stored events to domain events, and loads what the transcoder lacks.
    ///
    /// # Errors
    /// As [`to_domain_event`](Self::to_domain_event); any error of loading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read_events<E: Event>(
        &self,
        events: &[StoredEvent],
    ) -> Result<Vec<DomainEvent<E>>, PersistenceError> {
        let mut read = Vec::with_capacity(events.len());
        let mut rest = events.iter();
        while let Some(event) = rest.next() {
            read.push(self.read_first(event, rest.clone()).await?);
        }
        Ok(read)
    }

    /// Loads what the transcoder lacks for stored events, so that they can be decoded synchronously soon
    /// after.
    ///
    /// # Errors
    /// Any error of loading. Errors of decoding are left to the decoding.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn preload<'a, E: Event>(
        &self,
        events: impl IntoIterator<Item = &'a StoredEvent>,
    ) -> Result<(), PersistenceError> {
        events.into_iter().for_each(|event| drop(self.to_domain_event::<E>(event)));
        self.transcoder.load_missing().await
    }

    /// Converts a stored event to a domain event. If it lacks something, what the following ones lack is
    /// loaded at the same time.
    pub(crate) async fn read_first<'a, E: Event>(
        &self,
        event: &StoredEvent,
        following: impl Iterator<Item = &'a StoredEvent> + Clone,
    ) -> Result<DomainEvent<E>, PersistenceError> {
        let note = || following.clone().for_each(|event| drop(self.to_domain_event::<E>(event)));
        self.loading(|| self.to_domain_event(event), note).await
    }

    /// Repeats a conversion after loading what it lacked. The first time, `note` tries other conversions
    /// before, so that the transcoder notes what they lack.
    async fn loading<V>(
        &self,
        convert: impl Fn() -> Result<V, PersistenceError>,
        note: impl Fn(),
    ) -> Result<V, PersistenceError> {
        let mut result = convert();
        for load in 0..MAX_LOADS {
            if !result.as_ref().is_err_and(PersistenceError::is_unloaded) {
                break;
            }
            if load == 0 {
                note();
            }
            self.transcoder.load_missing().await?;
            result = convert();
        }
        result
    }

    /// Decodes a state as the transcoder wrote it, neither compressed nor encrypted: for tests of upcasting,
    /// with the JSON of older class versions.
    ///
    /// # Errors
    /// As [`to_domain_event`](Self::to_domain_event).
    pub fn decode_state<E: Event>(
        &self,
        topic: &str,
        state: impl AsRef<[u8]>,
    ) -> Result<DomainEvent<E>, PersistenceError> {
        let topic = Topic::from_stored(topic);
        let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
        self.decode(context, state.as_ref()).map_err(|error| error.with_event(&context))
    }

    fn write<E: Event>(
        &self,
        context: &EventContext<'_>,
        event: &DomainEvent<E>,
    ) -> Result<Vec<u8>, PersistenceError> {
        let mut state = Vec::with_capacity(STATE_CAPACITY);
        self.transcoder.encode(&FlatState { event, transcoder: &self.transcoder }, &mut state)?;
        if let Some(compressor) = &self.compressor {
            let mut compressed = Vec::with_capacity(state.len());
            compressor.compress(&state, &mut compressed)?;
            state = compressed;
        }
        if let Some(cipher) = &self.cipher {
            let mut encrypted = Vec::new();
            cipher.encrypt(context, &state, &mut encrypted)?;
            state = encrypted;
        }
        Ok(state)
    }

    fn read<E: Event>(&self, event: &StoredEvent) -> Result<DomainEvent<E>, PersistenceError> {
        let context = event.context();
        let mut bytes = Cow::Borrowed(&*event.state);
        if let Some(cipher) = &self.cipher {
            let mut decrypted = Vec::new();
            cipher.decrypt(&context, &bytes, &mut decrypted)?;
            bytes = Cow::Owned(decrypted);
        }
        if let Some(compressor) = &self.compressor {
            let mut decompressed = Vec::new();
            compressor.decompress(&bytes, &mut decompressed)?;
            bytes = Cow::Owned(decompressed);
        }
        self.decode(context, &bytes)
    }

    fn decode<E: Event>(
        &self,
        context: EventContext<'_>,
        bytes: &[u8],
    ) -> Result<DomainEvent<E>, PersistenceError> {
        let mut state = StateReader::new(bytes, context, &self.transcoder);
        let payload = E::decode(context.topic.as_str(), &mut state)?;
        let (timestamp, metadata) = state.into_common()?;
        let event = DomainEvent::at(context.originator_id, context.originator_version, timestamp, payload);
        Ok(event.with_metadata(metadata))
    }
}

/// Serializes the state of an event as one flat object.
struct FlatState<'a, E, T> {
    event: &'a DomainEvent<E>,
    transcoder: &'a T,
}

impl<E: Event, T: Transcoder> Serialize for FlatState<'_, E, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_map(None)?;
        state.serialize_entry("timestamp", &Timestamp(&self.event.timestamp, self.transcoder))?;
        self.event.payload.encode(&mut state)?;
        let class_version = self.event.payload.class_version();
        if class_version > 1 {
            state.serialize_entry("class_version", &class_version)?;
        }
        if !self.event.metadata.is_empty() {
            state.serialize_entry(METADATA, &self.event.metadata)?;
        }
        state.end()
    }
}

struct Timestamp<'a, T>(&'a OffsetDateTime, &'a T);

impl<T: Transcoder> Serialize for Timestamp<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.1.serialize_timestamp(self.0, serializer)
    }
}

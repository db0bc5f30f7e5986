//! The event store: a mapper in front of a recorder.

use futures_core::Stream;
use futures_util::{TryStreamExt, stream::try_unfold};
use uuid::Uuid;

use crate::{
    AggregateRecorder, Conflict, DEFAULT_PAGE_SIZE, DomainEvent, Event, EventRange, Mapper, Metadata,
    PersistenceError, ProcessRecorder, StoredEvent, Tracking, Transcoder, next_version, streams::event_pages,
};

/// Stores and retrieves domain events: a [`Mapper`] in front of a recorder.
///
/// `R` is a recorder, or an `Arc` of an object-safe version such as `Arc<dyn DynAggregateRecorder>` if the
/// recorder is chosen at run time. A clone shares the recorder if a clone of the recorder does.
///
/// ```
/// use es_core::{AggregateRecorder, DomainEvent, Event, EventRange, EventStore, Expected, Mapper};
/// use es_core::{PersistenceError, Transcoder, uuid::Uuid};
///
/// async fn append_and_read<R: AggregateRecorder, T: Transcoder, E: Event>(
///     recorder: R,
///     transcoder: T,
///     first: E,
/// ) -> Result<Vec<DomainEvent<E>>, PersistenceError> {
///     let store = EventStore::new(recorder, Mapper::new(transcoder));
///     let account = Uuid::now_v7();
///     // Version 1; fails with a conflict if another writer has recorded it.
///     store.append(account, Expected::New, [first]).await?;
///     store.get(account, EventRange::all()).await
/// }
/// ```
#[derive(Clone, Debug)]
pub struct EventStore<R, T> {
    recorder: R,
    mapper: Mapper<T>,
}

impl<R, T> EventStore<R, T> {
    /// A store with a recorder and a mapper.
    pub fn new(recorder: R, mapper: Mapper<T>) -> Self {
        Self { recorder, mapper }
    }

    /// Returns the recorder.
    pub fn recorder(&self) -> &R {
        &self.recorder
    }

    /// Returns the mapper.
    pub fn mapper(&self) -> &Mapper<T> {
        &self.mapper
    }
}

/// The state of an aggregate that an append expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// The aggregate has no events: the first appended event gets version 1.
    New,
    /// The last event has this version; 0 if there is no event.
    Version(i64),
    /// Any: the events follow the last one, at the time of the append.
    Any,
}

impl<R: AggregateRecorder, T: Transcoder> EventStore<R, T> {
    /// Appends events to an aggregate atomically, and numbers their versions. An empty list is accepted.
    ///
    /// Returns their notification ids in order, if the recorder assigns any. All except
    /// [`Expected::New`] read the last version first; [`put`](Self::put) takes versions from the caller
    /// and reads nothing.
    ///
    /// # Errors
    /// [`is_conflict`](PersistenceError::is_conflict) if the aggregate is in another state than expected:
    /// later, so that a version is taken, or earlier, so that a gap would be left. With [`Expected::Any`]
    /// such an append is repeated instead, as often as other writers are faster. Any error of mapping and
    /// recording. Nothing is recorded then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// # Cancel safety
    /// Cancel safe: either all events are recorded or none.
    pub async fn append<E: Event>(
        &self,
        originator_id: Uuid,
        expected: Expected,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.append_with_metadata(originator_id, expected, &Metadata::new(), events).await
    }

    /// Appends events as [`append`](Self::append) does, all with the same metadata.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    ///
    /// # Cancel safety
    /// Cancel safe: either all events are recorded or none.
    pub async fn append_with_metadata<E: Event>(
        &self,
        originator_id: Uuid,
        expected: Expected,
        metadata: &Metadata,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<i64>, PersistenceError> {
        let new = |payload| DomainEvent::new(originator_id, 0, payload).with_metadata(metadata.clone());
        let mut events: Vec<_> = events.into_iter().map(new).collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let mut version = match expected {
                Expected::New => 0,
                Expected::Any => self.last_version(originator_id, EventRange::all()).await?,
                Expected::Version(version) => {
                    let last = self.last_version(originator_id, EventRange::all().up_to(version)).await?;
                    if last != version {
                        return Err(
                            Conflict::MissingVersion { originator_id, originator_version: version }.into()
                        );
                    }
                    version
                }
            };
            for event in &mut events {
                version = next_version(version)?;
                event.originator_version = version;
            }
            match self.put(&events).await {
                Err(error) if expected == Expected::Any && error.is_conflict() => {}
                result => return result,
            }
        }
    }

    /// Returns the last version in a range; 0 if there is none.
    async fn last_version(&self, originator_id: Uuid, range: EventRange) -> Result<i64, PersistenceError> {
        let last = self.recorder.select_events(originator_id, range.desc().limit(1)).await?;
        Ok(last.first().map_or(0, |event| event.originator_version))
    }

    /// Records events of one type atomically, with the versions that the caller gave them. An empty list is
    /// accepted.
    ///
    /// Returns their notification ids in order, if the recorder assigns any.
    ///
    /// # Errors
    /// [`is_conflict`](PersistenceError::is_conflict) if an aggregate already has an event with one of the
    /// versions; any error of mapping and recording. Nothing is recorded then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// # Cancel safety
    /// Cancel safe: either all events are recorded or none.
    pub async fn put<E: Event>(&self, events: &[DomainEvent<E>]) -> Result<Vec<i64>, PersistenceError> {
        self.batch().with(events).await?.commit().await
    }

    /// Begins a batch of events of several types, which are recorded atomically.
    pub fn batch(&self) -> EventBatch<'_, R, T> {
        EventBatch { store: self, events: Vec::new() }
    }

    /// Returns the events of an aggregate within a range.
    ///
    /// # Errors
    /// Any error of selecting and mapping. A row that cannot be decoded is never skipped: the error names
    /// it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn get<E: Event>(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<DomainEvent<E>>, PersistenceError> {
        let events = self.recorder.select_events(originator_id, range).await?;
        self.mapper.read_events(&events).await
    }

    /// Streams the events of an aggregate within a range, in bounded memory. An error is the last item.
    pub fn stream<E: Event>(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<DomainEvent<E>, PersistenceError>> + Send {
        let pages = event_pages(&self.recorder, DEFAULT_PAGE_SIZE, originator_id, range);
        let decoded = |page: Vec<StoredEvent>| {
            try_unfold(page.into_iter(), async |mut events| {
                let Some((event, following)) = events.as_slice().split_first() else { return Ok(None) };
                let event = self.mapper.read_first(event, following.iter()).await?;
                events.next();
                Ok(Some((event, events)))
            })
        };
        pages.map_ok(decoded).try_flatten()
    }
}

/// Events of several types and aggregates, to be recorded atomically by [`commit`](Self::commit).
#[derive(Debug)]
#[must_use = "a batch records nothing until it is committed"]
pub struct EventBatch<'a, R, T> {
    store: &'a EventStore<R, T>,
    events: Vec<StoredEvent>,
}

impl<R: AggregateRecorder, T: Transcoder> EventBatch<'_, R, T> {
    /// Adds events of one type.
    ///
    /// # Errors
    /// Any error of mapping, with the event's context.
    ///
    /// # Cancel safety
    /// Cancel safe: the batch is dropped, and nothing is recorded.
    pub async fn with<E: Event>(mut self, events: &[DomainEvent<E>]) -> Result<Self, PersistenceError> {
        let mut events = self.store.mapper.write_events(events).await?;
        if self.events.is_empty() {
            self.events = events;
        } else {
            self.events.append(&mut events);
        }
        Ok(self)
    }

    /// Records the batch, as [`EventStore::put`] does.
    ///
    /// # Errors
    /// As [`EventStore::put`], except those of mapping.
    ///
    /// # Cancel safety
    /// Cancel safe: either the whole batch is recorded or nothing.
    pub async fn commit(self) -> Result<Vec<i64>, PersistenceError> {
        self.store.recorder.insert_events(self.events).await
    }

    /// Records the batch together with the position of the notification that caused it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and [`is_conflict`](PersistenceError::is_conflict) if the position, or a
    /// later one, is already recorded.
    ///
    /// # Cancel safety
    /// Cancel safe: either everything is recorded or nothing.
    pub async fn commit_with_tracking(self, tracking: Tracking) -> Result<Vec<i64>, PersistenceError>
    where
        R: ProcessRecorder,
    {
        self.store.recorder.insert_events_with_tracking(self.events, tracking).await
    }
}

//! A mapper in front of a recorder.

use futures_core::Stream;
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::{
    AggregateRecorder, AggregateRecorderExt, DomainEvent, Event, EventRange, Mapper, PersistenceError,
    ProcessRecorder, StoredEvent, Tracking, Transcoder,
};

/// Stores and retrieves domain events: a [`Mapper`] in front of a recorder.
///
/// `R` is a recorder, or `Arc<dyn DynAggregateRecorder>` and its like where the recorder is chosen
/// at run time. Share a store by reference or in an `Arc`.
#[derive(Debug)]
pub struct EventStore<R, T> {
    recorder: R,
    mapper: Mapper<T>,
}

impl<R, T> EventStore<R, T> {
    /// A store that maps with `mapper` and records with `recorder`.
    pub fn new(recorder: R, mapper: Mapper<T>) -> Self {
        Self { recorder, mapper }
    }

    /// The recorder.
    pub fn recorder(&self) -> &R {
        &self.recorder
    }

    /// The mapper.
    pub fn mapper(&self) -> &Mapper<T> {
        &self.mapper
    }
}

impl<R: AggregateRecorder, T: Transcoder> EventStore<R, T> {
    /// Records events of one type as one: all of them, or none. Putting nothing is fine.
    ///
    /// Returns their notification ids, in their order, where the recorder gives any.
    ///
    /// # Errors
    /// [`is_conflict`](PersistenceError::is_conflict) when an aggregate already has an event of such
    /// a version; what mapping and recording fail with. Nothing is recorded then, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// # Cancel safety
    /// When the future is dropped, the events are recorded whole or not at all.
    pub async fn put<E: Event>(&self, events: &[DomainEvent<E>]) -> Result<Vec<i64>, PersistenceError> {
        self.batch().with(events)?.commit().await
    }

    /// Begins a batch: events of several types and aggregates that are recorded as one.
    pub fn batch(&self) -> EventBatch<'_, R, T> {
        EventBatch { store: self, events: Vec::new() }
    }

    /// The events of an aggregate within a range.
    ///
    /// # Errors
    /// What selecting fails with, and mapping: a row that cannot be decoded is an error that names
    /// it, never skipped.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn get<E: Event>(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<DomainEvent<E>>, PersistenceError> {
        let events = self.recorder.select_events(originator_id, range).await?;
        events.iter().map(|event| self.mapper.to_domain_event(event)).collect()
    }

    /// The events of an aggregate within a range, in bounded memory; an error is the last item.
    pub fn stream<E: Event>(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> impl Stream<Item = Result<DomainEvent<E>, PersistenceError>> + Send {
        let stored = self.recorder.stream_events(originator_id, range);
        stored.and_then(async |event| self.mapper.to_domain_event(&event))
    }
}

/// Events of several types and aggregates on their way to being recorded as one.
///
/// Nothing is recorded until it is committed.
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
    /// What mapping fails with, naming the event.
    pub fn with<E: Event>(mut self, events: &[DomainEvent<E>]) -> Result<Self, PersistenceError> {
        self.events.reserve(events.len());
        for event in events {
            self.events.push(self.store.mapper.to_stored_event(event)?);
        }
        Ok(self)
    }

    /// Records the batch, as [`EventStore::put`] does.
    ///
    /// # Errors
    /// As [`EventStore::put`], without those of mapping.
    ///
    /// # Cancel safety
    /// When the future is dropped, the batch is recorded whole or not at all.
    pub async fn commit(self) -> Result<Vec<i64>, PersistenceError> {
        self.store.recorder.insert_events(self.events).await
    }

    /// Records the batch together with the position of the notification that caused it.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and [`is_conflict`](PersistenceError::is_conflict) when the
    /// position, or a later one, is already recorded.
    ///
    /// # Cancel safety
    /// When the future is dropped, everything is recorded, or nothing.
    pub async fn commit_with_tracking(self, tracking: Tracking) -> Result<Vec<i64>, PersistenceError>
    where
        R: ProcessRecorder,
    {
        self.store.recorder.insert_events_with_tracking(self.events, tracking).await
    }
}

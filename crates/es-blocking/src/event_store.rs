//! An event store whose operations wait.

use es_core::{
    AggregateRecorder, ApplicationRecorder, DomainEvent, Event, EventNotification, EventRange, Expected,
    Metadata, PersistenceError, Transcoder, uuid::Uuid,
};

use crate::{Iter, Recorder, Runtime};

/// An event store whose operations wait. Made by [`Runtime::event_store`].
///
/// Each method is that of the same name of [`es_core::EventStore`], with its errors, and with an error of
/// kind [`Interface`](es_core::ErrorKind::Interface) inside of a tokio runtime.
#[derive(Clone, Debug)]
pub struct EventStore<R, T> {
    runtime: Runtime,
    inner: es_core::EventStore<R, T>,
}

impl Runtime {
    /// Makes the operations of an event store wait.
    pub fn event_store<R, T>(&self, store: es_core::EventStore<R, T>) -> EventStore<R, T> {
        EventStore { runtime: self.clone(), inner: store }
    }
}

impl<R, T> EventStore<R, T> {
    /// Returns the event store itself, such as for a batch, whose commit [`Runtime::run`] waits for.
    pub fn inner(&self) -> &es_core::EventStore<R, T> {
        &self.inner
    }

    /// Returns the recorder, with operations that wait.
    pub fn recorder(&self) -> Recorder<R>
    where
        R: Clone,
    {
        self.runtime.recorder(self.inner.recorder().clone())
    }
}

impl<R: AggregateRecorder, T: Transcoder> EventStore<R, T> {
    /// Appends events to an aggregate atomically, and numbers their versions.
    ///
    /// # Errors
    /// As [`es_core::EventStore::append`].
    pub fn append<E: Event>(
        &self,
        originator_id: Uuid,
        expected: Expected,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.runtime.run(self.inner.append(originator_id, expected, events))
    }

    /// Appends events as [`append`](Self::append) does, all with the same metadata.
    ///
    /// # Errors
    /// As [`es_core::EventStore::append_with_metadata`].
    pub fn append_with_metadata<E: Event>(
        &self,
        originator_id: Uuid,
        expected: Expected,
        metadata: &Metadata,
        events: impl IntoIterator<Item = E>,
    ) -> Result<Vec<i64>, PersistenceError> {
        self.runtime.run(self.inner.append_with_metadata(originator_id, expected, metadata, events))
    }

    /// Records events of one type atomically, with the versions that the caller gave them.
    ///
    /// # Errors
    /// As [`es_core::EventStore::put`].
    pub fn put<E: Event>(&self, events: &[DomainEvent<E>]) -> Result<Vec<i64>, PersistenceError> {
        self.runtime.run(self.inner.put(events))
    }

    /// Returns the events of an aggregate within a range.
    ///
    /// # Errors
    /// As [`es_core::EventStore::get`].
    pub fn get<E: Event>(
        &self,
        originator_id: Uuid,
        range: EventRange,
    ) -> Result<Vec<DomainEvent<E>>, PersistenceError> {
        self.runtime.run(self.inner.get(originator_id, range))
    }

    /// Iterates over the events of an aggregate within a range, in bounded memory.
    pub fn stream<E: Event>(&self, originator_id: Uuid, range: EventRange) -> Iter<'_, DomainEvent<E>> {
        self.runtime.iter(self.inner.stream(originator_id, range))
    }
}

impl<R: ApplicationRecorder + Clone, T: Transcoder + Clone> EventStore<R, T> {
    /// Iterates over the events of one type after `position`, first recorded and then live ones. It ends when
    /// the recorder is closed.
    pub fn subscribe<'a, E: Event>(&self, position: i64) -> Iter<'a, EventNotification<E>>
    where
        R: 'a,
    {
        self.runtime.iter(self.inner.subscribe::<E>().after(position).into_stream())
    }
}

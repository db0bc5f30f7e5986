//! The notification of an erasure, in the log of the events.

use es_core::{
    AggregateRecorder, Event, EventStore, Expected, PersistenceError, StateReader, Topic, Transcoder,
    encode_attributes, uuid::Uuid,
};
use serde::{Deserialize, Serialize, ser::SerializeMap};

use crate::{Erasure, Subject, SubjectKeys, store::verify_erased_by};

const TOPIC: &str = "es_personal:SubjectErased";

/// The namespace of the originator ids: one for each subject.
const NAMESPACE: Uuid = Uuid::from_u128(0x6b1f_0a5e_54cf_4d0b_9d31_2f0e_7c1a_88d4);

/// The event that a subject is erased, for the consumers of a log: projections delete what they have of the
/// subject.
///
/// A log has at most one for each subject, so that a consumer handles it once, as any event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectErased {
    /// The data subject.
    pub subject: Subject,
    /// The person or program that ordered the erasure, or its reason. It stays in the log: no name or mail
    /// address of the subject.
    pub erased_by: String,
}

impl SubjectErased {
    /// Records the event in a log, unless the log has one of the subject already.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if `erased_by` has a NUL; any error of the store, except that
    /// conflict.
    ///
    /// # Cancel safety
    /// Cancel safe: the event is recorded or not.
    pub async fn record<R: AggregateRecorder, T: Transcoder>(
        self,
        log: &EventStore<R, T>,
    ) -> Result<(), PersistenceError> {
        verify_erased_by(&self.erased_by)?;
        let originator_id = Uuid::new_v5(&NAMESPACE, self.subject.as_str().as_bytes());
        match log.append(originator_id, Expected::New, [self]).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

impl Event for SubjectErased {
    const TOPICS: &[Topic] = &[Topic::from_static(TOPIC)];

    fn topic(&self) -> Topic {
        const { Topic::from_static(TOPIC) }
    }

    fn encode<M: SerializeMap>(&self, state: &mut M) -> Result<(), M::Error> {
        encode_attributes(self, state)
    }

    fn decode<T: Transcoder>(topic: &str, state: &mut StateReader<'_, T>) -> Result<Self, PersistenceError> {
        match topic {
            TOPIC => state.decode(),
            _ => Err(state.unknown_topic()),
        }
    }
}

impl SubjectKeys {
    /// Erases a subject as [`erase`](Self::erase) does, and before that records a [`SubjectErased`] in a log.
    ///
    /// If it is interrupted after the record, the key still exists. Repeat the call then, or let a consumer
    /// of the log [erase](Self::erase) the subject of each [`SubjectErased`].
    ///
    /// # Errors
    /// As [`SubjectErased::record`] and [`erase`](Self::erase). Repeat the call then.
    ///
    /// # Cancel safety
    /// A dropped future may have recorded the erasure without destroying the key.
    pub async fn erase_in<R: AggregateRecorder, T: Transcoder>(
        &self,
        log: &EventStore<R, T>,
        subject: impl Into<Subject>,
        erased_by: impl Into<String>,
    ) -> Result<Erasure, PersistenceError> {
        let (subject, erased_by) = (subject.into(), erased_by.into());
        let erased = SubjectErased { subject: subject.clone(), erased_by: erased_by.clone() };
        erased.record(log).await?;
        self.erase(subject, erased_by).await
    }
}

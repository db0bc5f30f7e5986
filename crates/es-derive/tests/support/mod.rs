//! Events through a mapper without compressor and cipher, so that the state is text.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::error::Error;

use es_core::{DomainEvent, Event, Mapper, PersistenceError, StoredEvent, Topic, time::OffsetDateTime};
use es_transcode::JsonTranscoder;
use uuid::Uuid;

/// The state of an event that happened at the epoch, with attributes such as `,"a":1`.
pub(crate) fn state(attributes: &str) -> String {
    format!(r#"{{"timestamp":{{"_type_":"datetime_iso","_data_":"1970-01-01T00:00:00+00:00"}}{attributes}}}"#)
}

/// Topic and state of an event that happened at the epoch.
pub(crate) fn written<E: Event + Clone>(event: &E) -> (String, String) {
    let stored = write(event).unwrap();
    (stored.topic.to_string(), String::from_utf8(stored.state.to_vec()).unwrap())
}

pub(crate) fn write<E: Event + Clone>(event: &E) -> Result<StoredEvent, PersistenceError> {
    let event = DomainEvent::at(Uuid::nil(), 1, OffsetDateTime::UNIX_EPOCH, event.clone());
    mapper().to_stored_event(&event)
}

pub(crate) fn stored(topic: &str, state: &str) -> StoredEvent {
    StoredEvent {
        originator_id: Uuid::nil(),
        originator_version: 1,
        topic: Topic::new(topic).unwrap(),
        state: state.to_owned().into(),
    }
}

pub(crate) fn read<E: Event>(event: &StoredEvent) -> Result<E, PersistenceError> {
    mapper().to_domain_event(event).map(|event| event.payload)
}

/// The message with those of its causes.
pub(crate) fn whole_message(error: &PersistenceError) -> String {
    let mut messages = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        messages.push(error.to_string());
        cause = error.source();
    }
    messages.join(": ")
}

fn mapper() -> Mapper<JsonTranscoder> {
    Mapper::new(JsonTranscoder::new())
}

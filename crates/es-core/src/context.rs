//! The identity of an event, for ciphers and errors.

use std::fmt;

use uuid::Uuid;

use crate::Topic;

/// The identity of an event: a cipher may bind its bytes to it, and errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventContext<'a> {
    /// The aggregate.
    pub originator_id: Uuid,
    /// The position in the aggregate's sequence.
    pub originator_version: i64,
    /// The topic.
    pub topic: &'a Topic,
}

/// The event that an error is about, as far as it is known; it has nothing of the event's state.
///
/// See [`PersistenceError::event_context`](crate::PersistenceError::event_context).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ErrorContext {
    /// The aggregate.
    pub originator_id: Option<Uuid>,
    /// The position in the aggregate's sequence.
    pub originator_version: Option<i64>,
    /// The topic.
    pub topic: Option<Topic>,
    /// The position in the log.
    pub notification_id: Option<i64>,
}

impl ErrorContext {
    /// Sets the event, unless it is set already.
    pub(crate) fn set_event(&mut self, event: &EventContext<'_>) {
        if self.event().is_none() {
            self.originator_id = Some(event.originator_id);
            self.originator_version = Some(event.originator_version);
            self.topic = Some(event.topic.clone());
        }
    }

    /// Returns the event, if it is known wholly.
    pub(crate) fn event(&self) -> Option<EventContext<'_>> {
        Some(EventContext {
            originator_id: self.originator_id?,
            originator_version: self.originator_version?,
            topic: self.topic.as_ref()?,
        })
    }
}

/// The event in messages of errors.
impl fmt::Display for EventContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { originator_id, originator_version, topic } = self;
        write!(f, "event {:?}, version {originator_version} of originator {originator_id}", topic.as_str())
    }
}

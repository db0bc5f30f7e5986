//! The identity of an event, for ciphers and errors.

use uuid::Uuid;

use crate::{PersistenceError, Topic};

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

impl PersistenceError {
    /// Names the event that the error is about, unless one is named already.
    #[must_use]
    pub fn with_event(self, context: &EventContext<'_>) -> Self {
        let EventContext { originator_id, originator_version, topic } = context;
        self.with_event_name(format_args!(
            "event {:?}, version {originator_version} of originator {originator_id}",
            topic.as_str()
        ))
    }
}

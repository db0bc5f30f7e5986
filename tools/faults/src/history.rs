//! The operations of clients with their begin and end; [`check`](crate::check::check) says
//! whether it keeps the promises of recorders.

use std::collections::{BTreeMap, HashMap};

use es_core::{Bytes, Notification, StoredEvent, Topic, uuid::Uuid};
use serde::{Deserialize, Serialize};

/// The topics of events: the first for even aggregates, the second for odd ones.
pub const TOPICS: [Topic; 2] = [Topic::from_static("faults:Happened"), Topic::from_static("faults:Occurred")];

/// An event, as clients write it and find it again. Which put wrote it stands in the event itself, so
/// that a reader of the log can check that batches are whole.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Event {
    /// The aggregate.
    pub aggregate: u64,
    /// Its place in the aggregate's sequence.
    pub version: i64,
    /// The key of the put.
    pub put: String,
    /// Which of the put's events it is.
    pub index: usize,
}

/// An event in the total order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The notification id.
    pub id: i64,
    /// The event.
    pub event: Event,
}

/// A call of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Call {
    /// Records events at these versions in one commit.
    Put {
        /// The aggregate and version of each.
        places: Vec<(u64, i64)>,
        /// The position to record with them: one more than the position that was read.
        tracking: Option<(String, i64)>,
    },
    /// All events of an aggregate.
    Get {
        /// The aggregate.
        aggregate: u64,
    },
    /// The notifications after an id.
    Select {
        /// The id.
        after: i64,
        /// The limit.
        limit: usize,
        /// The index of one of the [`TOPICS`]; `None` for all.
        topic: Option<usize>,
        /// The last one that must be among them if they are fewer than the limit.
        required: Required,
    },
}

/// The last notification that a page has to contain if it ends before its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Required {
    /// The last one that was acknowledged before the call.
    Acknowledged,
    /// One that a reader of a standby has waited for; 0 if it has not waited.
    UpTo(i64),
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// A put is recorded under these ids.
    Recorded(Vec<i64>),
    /// Something stands at one of a put's places already.
    Conflict,
    /// The position of a put, or a later one, is recorded already.
    TrackingConflict,
    /// A put was not recorded, for another reason.
    Refused,
    /// It is not known whether a put was recorded.
    Unknown,
    /// The result of a get.
    Events(Vec<Event>),
    /// The result of a select.
    Notifications(Vec<Recorded>),
    /// The notifications of a subscription, and the id up to which it has read everything.
    ReadUpTo(Vec<Recorded>, i64),
}

/// One line of a client's report. Times are nanoseconds of the machine's monotonic clock, which all
/// its processes share.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Message {
    /// The process is at work.
    Ready,
    /// A reader or a processor found that the log had lost events.
    RolledBack,
    /// A processor was started again.
    Restarted,
    /// An operation begins.
    Invoked {
        /// The operation.
        key: String,
        /// When.
        at: u64,
        /// The call.
        call: Call,
    },
    /// An operation is over.
    Returned {
        /// The operation.
        key: String,
        /// When.
        at: u64,
        /// The answer.
        answer: Answer,
    },
}

/// A call, and its answer unless the client was killed before it came.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name, unique in the history.
    pub key: String,
    /// The call.
    pub call: Call,
    /// When it began.
    pub invoked: u64,
    /// When it was over, and how.
    pub returned: Option<(u64, Answer)>,
}

/// The operations of clients, and the log after them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// The operations, in the order in which they were heard of.
    pub operations: Vec<Operation>,
    /// The whole log, in the order in which the recorder gives it.
    pub log: Vec<Recorded>,
    /// The recorded positions of what is tracked.
    pub positions: BTreeMap<String, i64>,
    #[serde(skip)]
    open: HashMap<String, usize>,
}

impl History {
    /// Takes note of what a client reports.
    pub fn record(&mut self, message: Message) {
        match message {
            Message::Ready | Message::RolledBack | Message::Restarted => {}
            Message::Invoked { key, at, call } => {
                self.open.insert(key.clone(), self.operations.len());
                self.operations.push(Operation { key, call, invoked: at, returned: None });
            }
            Message::Returned { key, at, answer } => {
                let operation = self.open.remove(&key).and_then(|index| self.operations.get_mut(index));
                if let Some(operation) = operation {
                    operation.returned = Some((at, answer));
                }
            }
        }
    }
}

impl Event {
    /// Returns whether events of an aggregate have the topic of a select.
    pub fn is_about(aggregate: u64, topic: Option<usize>) -> bool {
        topic.is_none_or(|topic| TOPICS.get(topic) == Some(&topic_of(aggregate)))
    }

    /// The event as recorders keep it, with `padding` more bytes of state.
    pub fn stored(&self, padding: usize) -> StoredEvent {
        StoredEvent {
            originator_id: Uuid::from_u128(self.aggregate.into()),
            originator_version: self.version,
            topic: topic_of(self.aggregate),
            state: Bytes::from(format!("{}#{}#{}", self.put, self.index, "x".repeat(padding))),
        }
    }

    /// The event that a recorder kept; one that no put wrote if it does not look like any.
    pub fn read(event: &StoredEvent) -> Self {
        let state = String::from_utf8_lossy(&event.state);
        let mut parts = state.split('#');
        let put = parts.next().unwrap_or_default().to_owned();
        let index = parts.next().and_then(|index| index.parse().ok()).unwrap_or(usize::MAX);
        let aggregate = u64::try_from(event.originator_id.as_u128()).unwrap_or(u64::MAX);
        Self { aggregate, version: event.originator_version, put, index }
    }
}

/// The topics to ask for: one of the [`TOPICS`], or none, which asks for all.
pub(crate) fn topics(topic: Option<usize>) -> Vec<Topic> {
    topic.and_then(|topic| TOPICS.into_iter().nth(topic)).into_iter().collect()
}

/// The topic of an aggregate's events.
fn topic_of(aggregate: u64) -> Topic {
    let [first, second] = TOPICS;
    if aggregate.is_multiple_of(2) { first } else { second }
}

impl Recorded {
    /// The notification that a recorder gave.
    pub fn read(notification: &Notification) -> Self {
        Self { id: notification.id, event: Event::read(&notification.event) }
    }
}

//! The records of recorders: events, notifications, tracking.

use std::{
    cmp::Ordering,
    collections::HashSet,
    fmt,
    hash::{DefaultHasher, Hasher},
};

use bytes::Bytes;
use uuid::Uuid;

use crate::{Conflict, ErrorKind, EventContext, PersistenceError, Topic};

/// An event as it is recorded: its context, and its state as bytes.
///
/// Versions and notification ids are `i64`, the whole range of the databases' `bigint`. Cloning
/// shares topic and state. `Debug` shows the length and a short digest of the state, and not its bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoredEvent {
    /// The aggregate that the event belongs to.
    pub originator_id: Uuid,
    /// The event's position in the aggregate's sequence; unique within the aggregate.
    pub originator_version: i64,
    /// The topic, which selects the event type that decodes the state.
    pub topic: Topic,
    /// The encoded, optionally compressed and encrypted, state.
    pub state: Bytes,
}

impl StoredEvent {
    /// Returns the identity of the event, for ciphers and errors.
    pub fn context(&self) -> EventContext<'_> {
        EventContext {
            originator_id: self.originator_id,
            originator_version: self.originator_version,
            topic: &self.topic,
        }
    }

    /// Returns the conflict of this event with a recorded one of the same version.
    pub fn conflict(&self) -> Conflict {
        Conflict::Version { originator_id: self.originator_id, originator_version: self.originator_version }
    }

    /// Verifies that a batch has no version of an aggregate twice. Every recorder does so before it writes.
    ///
    /// # Errors
    /// [`Programming`](crate::ErrorKind::Programming) for the first event whose version occurred before. It
    /// is not a conflict with stored data: to load the aggregate again and retry does not help.
    pub fn verify_unique_versions(events: &[Self]) -> Result<(), PersistenceError> {
        let key = |event: &Self| (event.originator_id, event.originator_version);
        // Versions of one aggregate in ascending order, the common case, need no set.
        if events.is_sorted_by(|a, b| key(a) < key(b)) {
            return Ok(());
        }
        let mut keys = HashSet::with_capacity(events.len());
        let Some(event) = events.iter().find(|event| !keys.insert(key(event))) else { return Ok(()) };
        let message = "the batch has two events of this version of the aggregate";
        Err(PersistenceError::programming(message).with_event(&event.context()))
    }
}

impl fmt::Debug for StoredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredEvent")
            .field("originator_id", &self.originator_id)
            .field("originator_version", &self.originator_version)
            .field("topic", &self.topic)
            .field("state", &StateSummary(&self.state))
            .finish()
    }
}

/// The length of a state, and a digest to distinguish two states in a log.
struct StateSummary<'a>(&'a [u8]);

impl fmt::Debug for StateSummary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        hasher.write(self.0);
        write!(f, "{} bytes #{:08x}", self.0.len(), hasher.finish() as u32)
    }
}

/// A stored event with its position in the total order of an application's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The position: increasing, unique, not always contiguous.
    pub id: i64,
    /// The event.
    pub event: StoredEvent,
}

/// A tracking record: the range of notifications of an upstream that a consumer has processed.
///
/// The application name is its key: the name of the consumer, which no other consumer in the datastore has.
/// The Python library uses the name of the upstream application, because it has one consumer for each.
///
/// Recording it fails with a [conflict](Conflict::Tracking) if any of them is already processed: if the
/// recorded position is not before the first. A record that [expects a position](Self::after) also fails
/// if another position is recorded.
///
/// The application name:
/// - is not empty and has no NUL character,
/// - is not `__migration__`, which marks the layout of the tracking table for the Python library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracking {
    application_name: String,
    first: i64,
    notification_id: i64,
    expected_position: Option<i64>,
}

impl Tracking {
    /// The name that is reserved in the Python library's tracking table.
    pub const RESERVED_NAME: &str = "__migration__";

    /// The record of one processed notification.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the name is invalid.
    pub fn new(application_name: impl Into<String>, notification_id: i64) -> Result<Self, PersistenceError> {
        Self::spanning(application_name, notification_id, notification_id)
    }

    /// The record of several processed notifications, from `first` to `notification_id`.
    ///
    /// The first one is needed to detect a consumer that repeats notifications which another one has just
    /// processed: its position may be greater all the same.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the name is invalid, or `first` is after the position.
    pub fn spanning(
        application_name: impl Into<String>,
        first: i64,
        notification_id: i64,
    ) -> Result<Self, PersistenceError> {
        let application_name = application_name.into();
        let reason = match application_name.as_str() {
            "" => "is empty",
            Self::RESERVED_NAME => "is reserved",
            name if name.contains('\0') => "has a NUL character",
            _ if first > notification_id => {
                return Err(PersistenceError::data(format!(
                    "notifications {first} to {notification_id} for consumer {application_name:?} are an empty range"
                )));
            }
            _ => return Ok(Self { application_name, first, notification_id, expected_position: None }),
        };
        Err(PersistenceError::data(format!("application name {application_name:?} {reason}")))
    }

    /// Requires that the recorded position is exactly `position`; 0 means that none is recorded.
    ///
    /// After a lower position there would be a gap: the notifications in between would count as processed.
    /// See [`validate`](Self::validate) for the errors.
    ///
    /// ```
    /// # use es_core::{PersistenceError, Tracking};
    /// let tracking = Tracking::spanning("bank", 8, 10)?.after(7)?;
    /// assert_eq!(tracking.expected_position(), Some(7));
    /// assert!(tracking.validate(Some(7)).is_ok());
    /// assert!(tracking.validate(Some(9)).unwrap_err().is_conflict());
    /// assert!(tracking.validate(Some(3)).unwrap_err().is_rolled_back());
    /// # Ok::<_, PersistenceError>(())
    /// ```
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if `position` is not before the first notification.
    pub fn after(mut self, position: i64) -> Result<Self, PersistenceError> {
        if position >= self.first {
            return Err(PersistenceError::data(format!(
                "notification {} for consumer {:?} does not come after position {position}",
                self.first, self.application_name
            )));
        }
        self.expected_position = Some(position);
        Ok(self)
    }

    /// Validates the record against the recorded position, as every recorder does in the transaction that
    /// writes it.
    ///
    /// # Errors
    /// With an [expected position](Self::expected_position):
    /// - [`Integrity`](crate::ErrorKind::Integrity) with a [conflict](Conflict::Tracking) if the recorded
    ///   position is greater: another instance has moved it;
    /// - [`RolledBack`](crate::ErrorKind::RolledBack) if it is less, or none is recorded: the tracking
    ///   record is older than an acknowledged one.
    ///
    /// Without one, the conflict if the recorded position is not before the
    /// [first notification](Self::first_notification_id).
    pub fn validate(&self, recorded: Option<i64>) -> Result<(), PersistenceError> {
        let Some(expected) = self.expected_position else {
            return if recorded >= Some(self.first) { Err(self.conflict().into()) } else { Ok(()) };
        };
        match recorded.unwrap_or(0).cmp(&expected) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(self.conflict().into()),
            Ordering::Less => Err(self.rolled_back(expected, recorded)),
        }
    }

    /// Returns the conflict of this record with a recorded one.
    pub fn conflict(&self) -> Conflict {
        Conflict::Tracking { application_name: self.application_name.clone(), notification_id: self.first }
    }

    fn rolled_back(&self, expected: i64, recorded: Option<i64>) -> PersistenceError {
        let recorded = recorded.map_or_else(|| "none".to_owned(), |recorded| recorded.to_string());
        let message = format!(
            "consumer {:?} has processed up to notification {expected}, but the recorded position is \
             {recorded}: the tracking record was rolled back",
            self.application_name
        );
        PersistenceError::new(ErrorKind::RolledBack, message)
    }

    /// Returns the name under which the position is recorded.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// Returns the id of the first processed notification.
    pub fn first_notification_id(&self) -> i64 {
        self.first
    }

    /// Returns the id of the last processed notification: the position.
    pub fn notification_id(&self) -> i64 {
        self.notification_id
    }

    /// Returns the position that must be recorded, if one is [required](Self::after); 0 for none.
    pub fn expected_position(&self) -> Option<i64> {
        self.expected_position
    }
}

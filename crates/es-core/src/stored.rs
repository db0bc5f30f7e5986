//! The records of recorders: events, notifications, tracking.

use std::cmp::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use crate::{Conflict, ErrorKind, EventContext, PersistenceError, Topic};

/// An event as it is recorded: its context, and its state as bytes.
///
/// Versions and notification ids are `i64`, the whole range of the databases' `bigint`. Cloning
/// shares topic and state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

/// A stored event with its position in the total order of an application's events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The position: increasing, unique, not always contiguous.
    pub id: i64,
    /// The event.
    pub event: StoredEvent,
}

/// A tracking record: the range of notifications of an upstream application that a consumer has processed.
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
                    "notifications {first} to {notification_id} of application {application_name:?} are an empty range"
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
                "notification {} of application {:?} does not come after position {position}",
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
            "application {:?} was processed up to notification {expected}, but the recorded position is \
             {recorded}: the tracking record was rolled back",
            self.application_name
        );
        PersistenceError::new(ErrorKind::RolledBack, message)
    }

    /// Returns the name of the upstream application.
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

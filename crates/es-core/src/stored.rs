//! What recorders keep.

use std::cmp::Ordering;

use bytes::Bytes;
use uuid::Uuid;

use crate::{Conflict, ErrorKind, EventContext, PersistenceError, Topic};

/// An event as a recorder keeps it: its context, its topic, and its state as bytes.
///
/// Versions and notification ids are `i64`, the whole range of the databases' `bigint`. Cloning
/// shares topic and state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredEvent {
    /// The aggregate that the event belongs to.
    pub originator_id: Uuid,
    /// The event's position in the aggregate's sequence; unique within the aggregate.
    pub originator_version: i64,
    /// Which event type decodes the state.
    pub topic: Topic,
    /// What the mapper made of the event: encoded, perhaps compressed, perhaps encrypted.
    pub state: Bytes,
}

impl StoredEvent {
    /// Where the event stands, for ciphers and errors.
    pub fn context(&self) -> EventContext<'_> {
        EventContext {
            originator_id: self.originator_id,
            originator_version: self.originator_version,
            topic: &self.topic,
        }
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

/// How far a consumer has processed the notifications of an upstream application, and from where on.
///
/// It is refused with a [conflict](Conflict::Tracking) when any of the notifications that it accounts
/// for is already processed: when the recorded position is not before the first of them. A record that
/// [expects a position](Self::after) is also refused when the recorded position is another one.
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
    /// The name that the Python library's tracking table keeps for its own mark.
    pub const RESERVED_NAME: &str = "__migration__";

    /// The position `notification_id` in the notifications of an upstream application, when that one
    /// was processed.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) when the name breaks a rule above.
    pub fn new(application_name: impl Into<String>, notification_id: i64) -> Result<Self, PersistenceError> {
        Self::spanning(application_name, notification_id, notification_id)
    }

    /// The position `notification_id`, when several notifications were processed, from `first` on.
    ///
    /// Without the first one said, a consumer that handles several at a time could not be told from
    /// one that repeats what another has just processed: its position is greater all the same.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) when the name breaks a rule above, or `first` comes after the
    /// position.
    pub fn spanning(
        application_name: impl Into<String>,
        first: i64,
        notification_id: i64,
    ) -> Result<Self, PersistenceError> {
        let application_name = application_name.into();
        let flaw = match application_name.as_str() {
            "" => "is empty",
            Self::RESERVED_NAME => "is reserved",
            name if name.contains('\0') => "has a NUL character",
            _ if first > notification_id => {
                return Err(PersistenceError::data(format!(
                    "notifications from {first} to {notification_id} of application {application_name:?} are none"
                )));
            }
            _ => return Ok(Self { application_name, first, notification_id, expected_position: None }),
        };
        Err(PersistenceError::data(format!("application name {application_name:?} {flaw}")))
    }

    /// Requires that the recorded position is exactly `position`; 0 means that none is recorded.
    ///
    /// A record that follows another position is a gap: the notifications in between would count as
    /// processed. [`validate`](Self::validate) says how such a record is refused.
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
    /// [`Data`](crate::ErrorKind::Data) when `position` is not before the first notification.
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

    /// Compares the record with the recorded position, as every recorder does in the transaction that
    /// writes it.
    ///
    /// # Errors
    /// With an [expected position](Self::expected_position):
    /// - [`Integrity`](crate::ErrorKind::Integrity) with a [conflict](Conflict::Tracking) when the
    ///   recorded position is greater: another instance has moved it;
    /// - [`RolledBack`](crate::ErrorKind::RolledBack) when it is less, or none is recorded: the tracking
    ///   record is older than one that was acknowledged.
    ///
    /// Without one, the conflict when the recorded position is not before the [first](Self::first)
    /// notification.
    pub fn validate(&self, recorded: Option<i64>) -> Result<(), PersistenceError> {
        let Some(expected) = self.expected_position else {
            return match recorded {
                Some(recorded) if recorded >= self.first => Err(self.conflict().into()),
                _ => Ok(()),
            };
        };
        match recorded.unwrap_or(0).cmp(&expected) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(self.conflict().into()),
            Ordering::Less => Err(self.rolled_back(expected, recorded)),
        }
    }

    /// The conflict of this record with one that is recorded.
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

    /// The upstream application.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The first notification that was processed.
    pub fn first_notification_id(&self) -> i64 {
        self.first
    }

    /// The position of the last notification that was processed.
    pub fn notification_id(&self) -> i64 {
        self.notification_id
    }

    /// The position that must be recorded, where one is [required](Self::after); 0 for none.
    pub fn expected_position(&self) -> Option<i64> {
        self.expected_position
    }
}

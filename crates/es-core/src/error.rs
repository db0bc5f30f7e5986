//! The error of all operations, with the kinds of the Python library (and of the Python DB API, PEP 249).

use std::{error::Error, fmt, iter::successors, sync::Arc};

use uuid::Uuid;

/// The error of all operations of the library.
///
/// [`kind`](Self::kind) and the predicates classify it; [`source`](Error::source) is the cause. Cloning is
/// cheap, so that one failed group commit can fail every caller with it.
///
/// ```
/// use es_core::{Conflict, ErrorKind, PersistenceError, uuid::Uuid};
///
/// let error = PersistenceError::from(Conflict::Version {
///     originator_id: Uuid::nil(),
///     originator_version: 3,
/// });
/// assert_eq!(error.kind(), ErrorKind::Integrity);
/// assert!(error.is_conflict());
/// assert_eq!(
///     error.to_string(),
///     "version 3 of originator 00000000-0000-0000-0000-000000000000 is already recorded",
/// );
/// ```
#[derive(Clone)]
pub struct PersistenceError(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    /// The event that the error is about.
    event: Option<String>,
    conflict: Option<Conflict>,
    is_unloaded: bool,
    cause: Cause,
}

/// The cause of an error. It is the first source of a transient error, because `anyhow::Error` hides the
/// error that it was made from when it is converted to a boxed error, but not its sources.
#[derive(Clone, Default)]
struct Cause {
    is_transient: bool,
    error: Option<Arc<dyn Error + Send + Sync>>,
}

/// The kind of a [`PersistenceError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The library is used incorrectly, for example after `close()`.
    Interface,
    /// Any other failure of the datastore.
    Database,
    /// A value cannot be stored, or a stored value cannot be read: it is malformed, out of range, or cannot
    /// be decrypted.
    Data,
    /// The datastore is not available: unreachable, locked beyond the timeout, full, read-only.
    Operational,
    /// The connection was lost during a commit, and it could not be determined whether the events were
    /// recorded.
    OutcomeUnknown,
    /// A wait timed out; nothing failed.
    TimedOut,
    /// A write conflicts with stored data; see [`PersistenceError::conflict`].
    Integrity,
    /// The log, or the tracking record, is behind a position that was reached before: a failover to a
    /// lagging standby or the restore of a backup has lost acknowledged writes. To continue would skip
    /// events or repeat effects.
    RolledBack,
    /// An internal invariant of the datastore or of this library was violated: a bug.
    Internal,
    /// The program or its configuration is wrong: a missing table, an unregistered transcoding, a malformed
    /// setting, the same version twice in one batch.
    Programming,
    /// The datastore, or this build of the library, does not support the operation.
    NotSupported,
}

/// The conflict of a write with stored data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conflict {
    /// The aggregate already has an event of this version.
    Version {
        /// The aggregate.
        originator_id: Uuid,
        /// The version that is already recorded.
        originator_version: i64,
    },
    /// The version that an append expects as the last one is not recorded.
    MissingVersion {
        /// The aggregate.
        originator_id: Uuid,
        /// The version that is not recorded.
        originator_version: i64,
    },
    /// A notification is already recorded as processed.
    Tracking {
        /// The name under which the position is recorded: the consumer's.
        application_name: String,
        /// The first notification of the refused tracking record.
        notification_id: i64,
    },
}

impl PersistenceError {
    /// An error of a kind. The message names the thing that it is about, and never contains a secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            event: None,
            conflict: None,
            is_unloaded: false,
            cause: Cause::default(),
        }))
    }

    /// An error of kind [`ErrorKind::Interface`].
    pub fn interface(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Interface, message)
    }

    /// An error of kind [`ErrorKind::Data`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// An error of kind [`ErrorKind::Operational`].
    pub fn operational(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Operational, message)
    }

    /// An error of kind [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An error of kind [`ErrorKind::Programming`].
    pub fn programming(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Programming, message)
    }

    /// An error of kind [`ErrorKind::NotSupported`].
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotSupported, message)
    }

    /// Sets the cause. The message must not repeat the message of the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause.error = Some(Arc::from(source.into()));
        self
    }

    /// Names the event that the error is about, unless one is named already.
    #[must_use]
    pub(crate) fn with_event_name(mut self, name: fmt::Arguments<'_>) -> Self {
        self.0.event.get_or_insert_with(|| name.to_string());
        self
    }

    /// Prefixes the message with the thing that the error is about, such as a database.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// let full = PersistenceError::operational("the disk is full").with_context("database \"events.db\"");
    /// assert_eq!(full.to_string(), "database \"events.db\": the disk is full");
    /// ```
    #[must_use]
    pub fn with_context(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// Marks the failure as [transient](Self::is_transient). Its [`source`](Error::source) is then a note of
    /// that, and the source of the note is the cause.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.0.cause.is_transient = true;
        self
    }

    /// Marks the failure as [unloaded](Self::is_unloaded).
    #[must_use]
    pub fn unloaded(mut self) -> Self {
        self.0.is_unloaded = true;
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the conflict with stored data, if that was the failure.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.0.conflict.as_ref()
    }

    /// Returns whether this version, or this tracking position, was already recorded, or an expected version
    /// was not.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// assert!(!PersistenceError::data("not JSON").is_conflict());
    /// ```
    pub fn is_conflict(&self) -> bool {
        self.0.conflict.is_some()
    }

    /// Returns whether a synchronous call lacked something that is loaded asynchronously, such as the key of a
    /// personal value. The asynchronous methods of [`Mapper`](crate::Mapper) load it and repeat the call.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// assert!(PersistenceError::operational("the key is not in memory").unloaded().is_unloaded());
    /// ```
    pub fn is_unloaded(&self) -> bool {
        self.0.is_unloaded
    }

    /// Returns whether the same call may succeed later: nothing was recorded, and the cause (a lock, a lost
    /// connection, a restart) is temporary.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// let locked = PersistenceError::operational("the database is locked").transient();
    /// assert!(locked.is_transient());
    /// assert!(!PersistenceError::operational("the disk is full").is_transient());
    /// ```
    pub fn is_transient(&self) -> bool {
        self.0.cause.is_transient
    }

    /// Returns whether an error of any type is, or has as a source, a [transient](Self::is_transient)
    /// `PersistenceError`. The first `PersistenceError` of the chain decides.
    ///
    /// ```
    /// # use es_core::{HandlerError, PersistenceError};
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("the order cannot be shipped")]
    /// struct ShippingError(#[from] PersistenceError);
    ///
    /// let locked = PersistenceError::operational("the database is locked").transient();
    /// let error = HandlerError::from(ShippingError::from(locked));
    /// assert!(PersistenceError::is_transient_in(&*error));
    /// ```
    pub fn is_transient_in(error: &(dyn Error + 'static)) -> bool {
        let is_transient = |error: &(dyn Error + 'static)| match error.downcast_ref::<Self>() {
            Some(error) => Some(error.is_transient()),
            None => error.downcast_ref::<Cause>().map(|cause| cause.is_transient),
        };
        successors(Some(error), |error| (*error).source()).find_map(is_transient).unwrap_or(false)
    }

    /// Returns whether it is unknown if the events were recorded. Read them back before a retry.
    ///
    /// ```
    /// # use es_core::{ErrorKind, PersistenceError};
    /// let lost = PersistenceError::new(ErrorKind::OutcomeUnknown, "the connection was lost");
    /// assert!(lost.is_outcome_unknown());
    /// ```
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.kind == ErrorKind::OutcomeUnknown
    }

    /// Returns whether the log or the tracking record is behind a position that was reached before. A retry
    /// does not help: decide which of the two is right, and correct the other.
    ///
    /// ```
    /// # use es_core::{PersistenceError, Tracking};
    /// let tracking = Tracking::new("bank", 11)?.after(10)?;
    /// assert!(tracking.validate(Some(7)).unwrap_err().is_rolled_back());
    /// # Ok::<_, PersistenceError>(())
    /// ```
    pub fn is_rolled_back(&self) -> bool {
        self.0.kind == ErrorKind::RolledBack
    }
}

impl From<Conflict> for PersistenceError {
    fn from(conflict: Conflict) -> Self {
        let mut error = Self::new(ErrorKind::Integrity, conflict.to_string());
        error.0.conflict = Some(conflict);
        error
    }
}

impl Error for Conflict {}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interface => "interface error",
            Self::Database => "database error",
            Self::Data => "data error",
            Self::Operational => "operational error",
            Self::OutcomeUnknown => "outcome unknown",
            Self::TimedOut => "timed out",
            Self::Integrity => "integrity error",
            Self::RolledBack => "rolled back",
            Self::Internal => "internal error",
            Self::Programming => "programming error",
            Self::NotSupported => "not supported",
        })
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { originator_id, originator_version } => {
                write!(f, "version {originator_version} of originator {originator_id} is already recorded")
            }
            Self::MissingVersion { originator_id, originator_version } => {
                write!(f, "version {originator_version} of originator {originator_id} is not recorded")
            }
            Self::Tracking { application_name, notification_id } => write!(
                f,
                "notification {notification_id} does not follow the recorded position of consumer \
                 {application_name:?}"
            ),
        }
    }
}

impl fmt::Display for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(event) = &self.0.event {
            write!(f, "{event}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PersistenceError");
        debug.field("kind", &self.0.kind).field("message", &self.to_string());
        if let Some(conflict) = &self.0.conflict {
            debug.field("conflict", conflict);
        }
        if self.0.cause.is_transient {
            debug.field("transient", &true);
        }
        if let Some(source) = &self.0.cause.error {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl Error for PersistenceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        if self.0.cause.is_transient { Some(&self.0.cause) } else { self.0.cause.source() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the failure is transient")
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cause").field(&self.error).finish()
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.as_deref().map(|error| error as &(dyn Error + 'static))
    }
}

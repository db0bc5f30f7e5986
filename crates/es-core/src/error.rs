//! The error of all operations, with the kinds of the Python library (and of the Python DB API, PEP 249).

use std::{error::Error, fmt, iter::successors, sync::Arc};

use uuid::Uuid;

use crate::{ErrorContext, EventContext};

/// The error of all operations of the library.
///
/// [`kind`](Self::kind) and the predicates classify it; [`event_context`](Self::event_context) is the event
/// that it is about. Its [`source`](Error::source) is the cause, behind a note of the kind if the error is
/// transient or about an event. Cloning is cheap, so that one failed group commit can fail every caller with
/// it.
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
    message: String,
    conflict: Option<Conflict>,
    note: Note,
}

/// The classification of an error, and its cause. It is the first source of an error that has any, because
/// errors that wrap it may hide it, but not its sources: `thiserror` with `transparent`, and `anyhow::Error`
/// when it is converted to a boxed error.
#[derive(Clone)]
struct Note {
    kind: ErrorKind,
    is_transient: bool,
    is_unloaded: bool,
    context: ErrorContext,
    cause: Option<Arc<dyn Error + Send + Sync>>,
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
        let note = Note {
            kind,
            is_transient: false,
            is_unloaded: false,
            context: ErrorContext::default(),
            cause: None,
        };
        Self(Box::new(Inner { message: message.into(), conflict: None, note }))
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
        self.0.note.cause = Some(Arc::from(source.into()));
        self
    }

    /// Names the event that the error is about, in its message and as data, unless one is named already.
    #[must_use]
    pub fn with_event(mut self, event: &EventContext<'_>) -> Self {
        self.0.note.context.set_event(event);
        self
    }

    /// Names the notification that the error is about, in its message and as data, unless one is named
    /// already.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// let error = PersistenceError::data("the state is not JSON").with_notification(7);
    /// assert_eq!(error.to_string(), "notification 7: the state is not JSON");
    /// ```
    #[must_use]
    pub fn with_notification(self, id: i64) -> Self {
        if self.0.note.context.notification_id.is_some() {
            return self;
        }
        self.with_context(format_args!("notification {id}"))
            .about(|context| context.notification_id = Some(id))
    }

    /// Sets what the error is about, as data.
    #[must_use]
    pub(crate) fn about(mut self, set: impl FnOnce(&mut ErrorContext)) -> Self {
        set(&mut self.0.note.context);
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
        self.0.note.is_transient = true;
        self
    }

    /// Marks the failure as [unloaded](Self::is_unloaded).
    #[must_use]
    pub fn unloaded(mut self) -> Self {
        self.0.note.is_unloaded = true;
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.0.note.kind
    }

    /// Returns the event that the error is about, as far as it is known.
    ///
    /// ```
    /// use es_core::{Conflict, PersistenceError, uuid::Uuid};
    ///
    /// let originator_id = Uuid::from_u128(1);
    /// let error = PersistenceError::from(Conflict::Version { originator_id, originator_version: 3 });
    /// let context = error.event_context().unwrap();
    /// assert_eq!((context.originator_id, context.originator_version), (Some(originator_id), Some(3)));
    /// assert_eq!((&context.topic, context.notification_id), (&None, None));
    /// assert_eq!(PersistenceError::data("not JSON").event_context(), None);
    /// ```
    pub fn event_context(&self) -> Option<&ErrorContext> {
        self.0.note.event_context()
    }

    /// Returns the event that an error of any type is about, if it is, or has as a source, a
    /// `PersistenceError`. The first `PersistenceError` of the chain decides.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// #[derive(Debug, thiserror::Error)]
    /// #[error("the order cannot be read")]
    /// struct ReadError(#[from] PersistenceError);
    ///
    /// let error = ReadError::from(PersistenceError::data("the state is not JSON").with_notification(7));
    /// let context = PersistenceError::event_context_in(&error).unwrap();
    /// assert_eq!(context.notification_id, Some(7));
    /// ```
    pub fn event_context_in<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e ErrorContext> {
        Self::note_in(error)?.event_context()
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

    /// Returns whether a synchronous call lacked something that is loaded asynchronously, such as the key of
    /// a personal value. The asynchronous methods of [`Mapper`](crate::Mapper) load it and repeat the call.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// assert!(PersistenceError::operational("the key is not in memory").unloaded().is_unloaded());
    /// ```
    pub fn is_unloaded(&self) -> bool {
        self.0.note.is_unloaded
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
        self.0.note.is_transient
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
        Self::note_in(error).is_some_and(|note| note.is_transient)
    }

    /// Returns whether an error of any type is, or has as a source, an [unloaded](Self::is_unloaded)
    /// `PersistenceError`. The first `PersistenceError` of the chain decides.
    pub fn is_unloaded_in(error: &(dyn Error + 'static)) -> bool {
        Self::note_in(error).is_some_and(|note| note.is_unloaded)
    }

    /// Returns the note of the first `PersistenceError` of a chain.
    fn note_in<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Note> {
        successors(Some(error), |error| (*error).source()).find_map(|error| {
            match error.downcast_ref::<Self>() {
                Some(error) => Some(&error.0.note),
                None => error.downcast_ref(),
            }
        })
    }

    /// Returns whether it is unknown if the events were recorded. Read them back before a retry.
    ///
    /// ```
    /// # use es_core::{ErrorKind, PersistenceError};
    /// let lost = PersistenceError::new(ErrorKind::OutcomeUnknown, "the connection was lost");
    /// assert!(lost.is_outcome_unknown());
    /// ```
    pub fn is_outcome_unknown(&self) -> bool {
        self.kind() == ErrorKind::OutcomeUnknown
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
        self.kind() == ErrorKind::RolledBack
    }
}

impl From<Conflict> for PersistenceError {
    fn from(conflict: Conflict) -> Self {
        let mut error = Self::new(ErrorKind::Integrity, conflict.to_string());
        error.0.note.context = conflict.context();
        error.0.conflict = Some(conflict);
        error
    }
}

impl Conflict {
    fn context(&self) -> ErrorContext {
        let mut context = ErrorContext::default();
        match *self {
            Self::Version { originator_id, originator_version }
            | Self::MissingVersion { originator_id, originator_version } => {
                context.originator_id = Some(originator_id);
                context.originator_version = Some(originator_version);
            }
            Self::Tracking { notification_id, .. } => context.notification_id = Some(notification_id),
        }
        context
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
        if let Some(event) = self.0.note.context.event() {
            write!(f, "{event}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("PersistenceError");
        let Note { kind, is_transient, is_unloaded, context: _, cause } = &self.0.note;
        debug.field("kind", kind).field("message", &self.to_string());
        if let Some(conflict) = &self.0.conflict {
            debug.field("conflict", conflict);
        }
        if *is_transient {
            debug.field("transient", &true);
        }
        if *is_unloaded {
            debug.field("unloaded", &true);
        }
        if let Some(source) = cause {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl Error for PersistenceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let note = &self.0.note;
        let is_noted = note.is_transient || note.is_unloaded || note.event_context().is_some();
        if is_noted { Some(note) } else { note.source() }
    }
}

impl Note {
    fn event_context(&self) -> Option<&ErrorContext> {
        Some(&self.context).filter(|context| **context != ErrorContext::default())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_transient { f.write_str("the failure is transient") } else { self.kind.fmt(f) }
    }
}

impl fmt::Debug for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Note").field(&self.cause).finish()
    }
}

impl Error for Note {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|error| error as &(dyn Error + 'static))
    }
}

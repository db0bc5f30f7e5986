//! One error for everything that persistence can meet, of the kinds that users of the Python
//! library (and of the Python DB API, PEP 249) know.

use std::{error::Error, fmt, sync::Arc};

use uuid::Uuid;

use crate::EventContext;

/// Why an operation of the library failed.
///
/// [`kind`](Self::kind) says what sort of failure it is, the predicates answer what callers ask,
/// [`source`](Error::source) keeps the cause. Cloning is cheap enough for one failed group commit
/// to tell every caller.
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
    context: Option<Place>,
    conflict: Option<Conflict>,
    transient: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The event that an error is about.
#[derive(Clone)]
struct Place {
    originator_id: Uuid,
    originator_version: i64,
    topic: String,
}

/// What sort of failure a [`PersistenceError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The library is used in a way that it does not offer, for example after `close()`.
    Interface,
    /// The datastore failed in a way that no other kind describes.
    Database,
    /// A value cannot be stored, or what is stored cannot be read: malformed, out of range,
    /// undecipherable.
    Data,
    /// The datastore cannot work now: unreachable, locked beyond the timeout, full, read-only.
    Operational,
    /// The connection was lost while a commit was in flight and it could not be found out whether
    /// the events were recorded.
    OutcomeUnknown,
    /// What was waited for did not come to pass in time; nothing failed.
    TimedOut,
    /// What was to be recorded is at odds with what is recorded; see [`PersistenceError::conflict`].
    Integrity,
    /// The log, or the tracking record, is behind a position that was reached before: a failover to a
    /// lagging standby or the restore of a backup has lost what was acknowledged. Going on from there
    /// would skip events or repeat effects.
    RolledBack,
    /// The datastore, or this library, broke a rule of its own.
    Internal,
    /// The program asks for what is not there: a missing table, an unregistered transcoding, a
    /// malformed setting.
    Programming,
    /// The datastore, or this build of the library, does not have what was asked for.
    NotSupported,
}

/// What collided when recording was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Conflict {
    /// The aggregate already has an event of this version.
    Version {
        /// The aggregate.
        originator_id: Uuid,
        /// The version that is taken.
        originator_version: i64,
    },
    /// A notification is recorded as processed already.
    Tracking {
        /// The upstream application.
        application_name: String,
        /// The first notification that was to be recorded as processed, and was already.
        notification_id: i64,
    },
}

impl PersistenceError {
    /// An error of a kind, with a message that names the thing it is about and never a secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            context: None,
            conflict: None,
            transient: false,
            source: None,
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

    /// Keeps the cause. The message must not repeat what the cause says of itself.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Names the event that the error is about, if none is named yet.
    #[must_use]
    pub fn at(mut self, context: &EventContext<'_>) -> Self {
        self.0.context.get_or_insert_with(|| Place {
            originator_id: context.originator_id,
            originator_version: context.originator_version,
            topic: context.topic.to_string(),
        });
        self
    }

    /// Names the thing that the error is about, a database for example, before the message.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// let full = PersistenceError::operational("there is no room").about("database \"events.db\"");
    /// assert_eq!(full.to_string(), "database \"events.db\": there is no room");
    /// ```
    #[must_use]
    pub fn about(mut self, thing: impl fmt::Display) -> Self {
        self.0.message = format!("{thing}: {}", self.0.message);
        self
    }

    /// Marks a failure that may pass by itself: see [`is_transient`](Self::is_transient).
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.0.transient = true;
        self
    }

    /// What sort of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What collided, if recording was refused for that.
    pub fn conflict(&self) -> Option<&Conflict> {
        self.0.conflict.as_ref()
    }

    /// Whether somebody else recorded this version, or this tracking position, before.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// assert!(!PersistenceError::data("not JSON").is_conflict());
    /// ```
    pub fn is_conflict(&self) -> bool {
        self.0.conflict.is_some()
    }

    /// Whether the same call may succeed later with nothing changed by the caller: nothing was
    /// recorded, and the cause (a lock, a lost connection, a restart) may pass.
    ///
    /// ```
    /// # use es_core::PersistenceError;
    /// let locked = PersistenceError::operational("the database is locked").transient();
    /// assert!(locked.is_transient());
    /// assert!(!PersistenceError::operational("the disk is full").is_transient());
    /// ```
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Whether the events may or may not have been recorded. Read them back before trying again.
    ///
    /// ```
    /// # use es_core::{ErrorKind, PersistenceError};
    /// let lost = PersistenceError::new(ErrorKind::OutcomeUnknown, "the connection was lost");
    /// assert!(lost.is_outcome_unknown());
    /// ```
    pub fn is_outcome_unknown(&self) -> bool {
        self.0.kind == ErrorKind::OutcomeUnknown
    }

    /// Whether the log or the tracking record is behind a position that was reached before. Trying
    /// again does not help: decide which of the two is right, and correct the other.
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
            Self::Tracking { application_name, notification_id } => write!(
                f,
                "notification {notification_id} of application {application_name:?} does not follow the \
                 recorded tracking position"
            ),
        }
    }
}

impl fmt::Display for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(context) = &self.0.context {
            write!(
                f,
                "event {:?}, version {} of originator {}: ",
                context.topic, context.originator_version, context.originator_id
            )?;
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
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl Error for PersistenceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

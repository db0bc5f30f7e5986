//! Why a processor stopped.

use std::{error::Error, fmt};

use es_core::{HandlerError, Notification, PersistenceError};

/// Why a processor stopped. It can be run again: it goes on after the recorded position.
///
/// Failures that may pass do not stop it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProcessorError {
    /// A notification could not be handled, and was not parked.
    Handler {
        /// The upstream application.
        application_name: String,
        /// The notification, which is not processed; those before it are.
        notification: Box<Notification>,
        /// What the handler said.
        source: HandlerError,
    },
    /// The upstream could not be read, or the downstream not written.
    Persistence {
        /// The upstream application.
        application_name: String,
        /// What failed.
        source: PersistenceError,
    },
}

impl fmt::Display for ProcessorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler { application_name, notification, .. } => write!(
                f,
                "notification {} of application {application_name:?} could not be handled (event {:?}, version {} \
                 of originator {})",
                notification.id,
                notification.event.topic.as_str(),
                notification.event.originator_version,
                notification.event.originator_id
            ),
            Self::Persistence { application_name, .. } => {
                write!(f, "processing the notifications of application {application_name:?} failed")
            }
        }
    }
}

impl Error for ProcessorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Handler { source, .. } => Some(source.as_ref()),
            Self::Persistence { source, .. } => Some(source),
        }
    }
}

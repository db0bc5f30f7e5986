//! The error that stops a processor.

use es_core::{HandlerError, Notification, PersistenceError};

/// The error that stopped a processor. It can be run again, and continues after the recorded position.
///
/// Transient failures do not stop it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessorError {
    /// A notification could not be handled, and was not parked.
    #[error(
        "consumer {consumer_name:?} could not handle notification {} (event {:?}, version {} of originator {})",
        notification.id,
        notification.event.topic.as_str(),
        notification.event.originator_version,
        notification.event.originator_id
    )]
    Handler {
        /// The name of the consumer.
        consumer_name: String,
        /// The notification. It is not processed; those before it are.
        notification: Box<Notification>,
        /// The handler's error.
        source: HandlerError,
    },
    /// The task of a [spawned](crate::Processor::spawn) processor panicked, or its runtime was shut down.
    #[error("consumer {consumer_name:?} was aborted")]
    Aborted {
        /// The name of the consumer.
        consumer_name: String,
        /// The error of the task.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The upstream could not be read, or the consumer could not record.
    #[error("consumer {consumer_name:?} could not process its notifications")]
    Persistence {
        /// The name of the consumer.
        consumer_name: String,
        /// The failure.
        source: PersistenceError,
    },
}

//! The error of a command.

use es_core::PersistenceError;

/// The error of a command whose decisions fail with an `E`.
///
/// Each variant displays as its content. An error enum of a program takes it whole, or apart:
///
/// ```
/// use es_aggregate::CommandError;
/// use es_core::PersistenceError;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the account is overdrawn")]
/// struct Overdrawn;
///
/// enum Response {
///     BadRequest(String),
///     TryAgain,
///     ServerError,
/// }
///
/// fn response(error: CommandError<Overdrawn>) -> Response {
///     match error {
///         CommandError::Rejected(overdrawn) => Response::BadRequest(overdrawn.to_string()),
///         CommandError::Persistence(error) if error.is_transient() => Response::TryAgain,
///         _ => Response::ServerError,
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum CommandError<E> {
    /// The decision failed. Nothing was recorded.
    #[error(transparent)]
    Rejected(E),
    /// Loading or recording failed. Nothing was recorded, unless
    /// [`is_outcome_unknown`](PersistenceError::is_outcome_unknown).
    ///
    /// A [conflict](PersistenceError::is_conflict) means that other writers were faster until the
    /// [time limit](crate::Repository::retry_for) of the retries.
    #[error(transparent)]
    Persistence(#[from] PersistenceError),
}

impl<E> CommandError<E> {
    /// Returns the error of the decision, if that was the failure.
    pub fn rejection(&self) -> Option<&E> {
        match self {
            Self::Rejected(error) => Some(error),
            Self::Persistence(_) => None,
        }
    }
}

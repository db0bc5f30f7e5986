//! Personal values.

use std::fmt;

use crate::Subject;

/// A value of a data subject, for the fields of events and of the states of aggregates.
///
/// In stored events it is sealed with the key of its subject. After the subject's erasure it is decoded as
/// [`Erased`](Self::Erased).
///
/// The type has serde's traits for transcoders only: a transcoder needs the transcoding of the type
/// ([`SubjectKeys::register`](crate::SubjectKeys::register)), and every other serializer fails. So a value is
/// never written in plain text by mistake, such as into the answer of an HTTP API. There, serialize what
/// [`value`](Self::value) returns.
///
/// `Debug` does not show the value.
//
// Exhaustive: a value is there or not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Personal<T> {
    /// The value is there.
    Value {
        /// The data subject.
        subject: Subject,
        /// The value.
        value: T,
    },
    /// The values of the subject were erased.
    Erased {
        /// The data subject.
        subject: Subject,
    },
}

impl<T> Personal<T> {
    /// A value of a subject.
    pub fn new(subject: impl Into<Subject>, value: T) -> Self {
        Self::Value { subject: subject.into(), value }
    }

    /// Returns the data subject.
    pub fn subject(&self) -> &Subject {
        match self {
            Self::Value { subject, .. } | Self::Erased { subject } => subject,
        }
    }

    /// Returns the value, unless it was erased.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value { value, .. } => Some(value),
            Self::Erased { .. } => None,
        }
    }

    /// Returns the value, unless it was erased.
    pub fn into_value(self) -> Option<T> {
        match self {
            Self::Value { value, .. } => Some(value),
            Self::Erased { .. } => None,
        }
    }

    /// Returns whether the value was erased.
    pub fn is_erased(&self) -> bool {
        matches!(self, Self::Erased { .. })
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { subject, .. } => {
                f.debug_struct("Value").field("subject", subject).finish_non_exhaustive()
            }
            Self::Erased { subject } => f.debug_struct("Erased").field("subject", subject).finish(),
        }
    }
}

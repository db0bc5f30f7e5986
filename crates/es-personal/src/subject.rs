//! Data subjects.

use std::{fmt, sync::Arc};

use es_core::{PersistenceError, uuid::Uuid};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// The most bytes of a subject: all databases can have it as a key.
const MAX_LENGTH: usize = 255;

/// The id of a data subject: a person, or another unit whose values are erased together.
///
/// A subject:
/// - has between 1 and 255 bytes of UTF-8,
/// - has no control characters,
/// - is stored in plain text, in the events and in the key store, and stays there after an erasure. Take a
///   random id, such as a UUID, and no name or mail address.
///
/// ```
/// use es_core::uuid::Uuid;
/// use es_personal::Subject;
///
/// let subject = Subject::from(Uuid::from_u128(7));
/// assert_eq!(subject.as_str(), "00000000-0000-0000-0000-000000000007");
/// assert_eq!(Subject::new("customer-7")?.as_str(), "customer-7");
/// assert!(Subject::new("").is_err());
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// A subject from its text.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if the text is empty, longer than 255 bytes, or has control
    /// characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, PersistenceError> {
        let text = text.as_ref();
        let reason = match text {
            "" => "is empty",
            _ if text.len() > MAX_LENGTH => "has more than 255 bytes",
            _ if has_control_character(text) => "has a control character",
            _ => return Ok(Self(text.into())),
        };
        Err(PersistenceError::data(format!("a data subject {reason}")))
    }

    /// Returns the text of the subject.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn has_control_character(text: &str) -> bool {
    // All bytes without a branch, which takes less time for short text. The control characters beyond ASCII
    // begin with the byte 0xc2.
    let is_possible = |byte: u8| byte.is_ascii_control() | (byte == 0xc2);
    let may_have_one = text.bytes().fold(false, |found, byte| found | is_possible(byte));
    may_have_one && text.chars().any(char::is_control)
}

impl From<Uuid> for Subject {
    fn from(id: Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl TryFrom<String> for Subject {
    type Error = PersistenceError;

    fn try_from(text: String) -> Result<Self, PersistenceError> {
        Self::new(text)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.as_str().to_owned()
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SubjectVisitor)
    }
}

struct SubjectVisitor;

impl Visitor<'_> for SubjectVisitor {
    type Value = Subject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of a data subject")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Subject, E> {
        Subject::new(text).map_err(E::custom)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

//! Topics from texts that are known at run time, and may be invalid.

use std::{str::FromStr, sync::Arc};

use crate::{PersistenceError, Topic, topic::invalid_reason};

impl Topic {
    /// A topic from text that is known at run time.
    ///
    /// # Errors
    /// [`Data`](crate::ErrorKind::Data) if the text is empty or has a NUL character.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, PersistenceError> {
        let text = text.into();
        match invalid_reason(&text) {
            None => Ok(Self::from_stored(text)),
            Some(reason) => Err(PersistenceError::data(format!("topic {text:?} {reason}"))),
        }
    }
}

impl FromStr for Topic {
    type Err = PersistenceError;

    fn from_str(text: &str) -> Result<Self, PersistenceError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Topic {
    type Error = PersistenceError;

    fn try_from(text: &str) -> Result<Self, PersistenceError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Topic {
    type Error = PersistenceError;

    fn try_from(text: String) -> Result<Self, PersistenceError> {
        Self::new(text)
    }
}

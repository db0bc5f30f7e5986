//! The transcoding of personal values.

use std::{fmt, marker::PhantomData};

use es_core::{BoxFuture, PersistenceError, Transcoding};
use es_transcode::{
    JsonTranscoder, RegisteredAs, decode_part, encode_part, fail_later,
    serde_with::{DeserializeAs, SerializeAs},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::{
    Personal, Subject, SubjectKeys,
    cache::{Lookup, SubjectState},
    format,
};

impl SubjectKeys {
    /// Registers the transcoding of `Personal<T>`. The values are written by the transcodings of the
    /// transcoder.
    pub fn register<T>(&self, transcoder: &mut JsonTranscoder)
    where
        T: Serialize + DeserializeOwned + 'static,
    {
        transcoder.register(PersonalTranscoding::<T>::new(self.clone()));
    }
}

/// The transcoding of `Personal<T>`: an object of the subject, and of the sealed value or `null`.
pub(crate) struct PersonalTranscoding<T> {
    keys: SubjectKeys,
    values: PhantomData<fn() -> T>,
}

#[derive(Serialize)]
pub(crate) struct Written<'a> {
    subject: &'a str,
    sealed: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    subject: Subject,
    // With this attribute, a missing field is an error.
    #[serde(deserialize_with = "Option::deserialize")]
    sealed: Option<String>,
}

impl<T> PersonalTranscoding<T> {
    pub(crate) fn new(keys: SubjectKeys) -> Self {
        Self { keys, values: PhantomData }
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Transcoding for PersonalTranscoding<T> {
    type Value = Personal<T>;
    type Encoded<'a> = Written<'a>;
    type Decoded = Read;

    fn name(&self) -> &str {
        "personal"
    }

    fn encode<'a>(&'a self, personal: &'a Personal<T>) -> Result<Written<'a>, PersistenceError> {
        let subject = personal.subject();
        let lookup = if personal.is_erased() { Lookup::Existing } else { Lookup::OrCreate };
        let written = |sealed| Ok(Written { subject: subject.as_str(), sealed });
        let Some(state) = self.keys.state(subject, lookup) else {
            fail_later(unloaded(subject))?;
            return written(None);
        };
        match (&*state, personal) {
            (SubjectState::Key(sealer), Personal::Value { value, .. }) => {
                written(Some(format::seal(sealer, subject, |plaintext| encode_part(value, plaintext))?))
            }
            (SubjectState::Erased, Personal::Erased { .. }) => written(None),
            (SubjectState::Erased, Personal::Value { .. }) => Err(PersistenceError::data(format!(
                "data subject {subject:?} is erased: no personal value can be stored for it"
            ))),
            (SubjectState::Key(_), Personal::Erased { .. }) => Err(not_erased(subject)),
            (SubjectState::Absent, _) => Err(absent(subject)),
            (SubjectState::Failed(error), _) => Err(error.clone()),
        }
    }

    fn decode(&self, Read { subject, sealed }: Read) -> Result<Personal<T>, PersistenceError> {
        let Some(state) = self.keys.state(&subject, Lookup::Existing) else {
            fail_later(unloaded(&subject))?;
            return Ok(Personal::Erased { subject });
        };
        match (&*state, sealed) {
            (SubjectState::Key(sealer), Some(sealed)) => {
                let value = format::open(sealer, &subject, &sealed, decode_part)?;
                Ok(Personal::Value { subject, value })
            }
            (SubjectState::Erased, _) => Ok(Personal::Erased { subject }),
            (SubjectState::Key(_), None) => Err(not_erased(&subject)),
            (SubjectState::Absent, _) => Err(absent(&subject)),
            (SubjectState::Failed(error), _) => Err(error.clone()),
        }
    }

    fn load_missing(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.keys.load_missing())
    }
}

/// Succeeds only within a transcoder with the transcoding of the type.
impl<T: Serialize + DeserializeOwned + 'static> Serialize for Personal<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RegisteredAs::<PersonalTranscoding<T>>::serialize_as(self, serializer)
    }
}

/// Succeeds only within a transcoder with the transcoding of the type.
impl<'de, T: Serialize + DeserializeOwned + 'static> Deserialize<'de> for Personal<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RegisteredAs::<PersonalTranscoding<T>>::deserialize_as(deserializer)
    }
}

fn unloaded(subject: &Subject) -> PersistenceError {
    let message = format!(
        "the key of data subject {subject:?} is not in memory: use an asynchronous method, which loads it, such \
         as `Mapper::read_event`"
    );
    PersistenceError::programming(message).unloaded()
}

fn not_erased(subject: &Subject) -> PersistenceError {
    PersistenceError::data(format!(
        "a personal value is marked as erased, but data subject {subject:?} is not"
    ))
}

fn absent(subject: &Subject) -> PersistenceError {
    PersistenceError::data(format!(
        "the key store has neither a key nor an erasure of data subject {subject:?}"
    ))
}

impl<T> fmt::Debug for PersonalTranscoding<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonalTranscoding").field("keys", &self.keys).finish_non_exhaustive()
    }
}

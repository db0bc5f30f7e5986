//! The registered transcodings: by type for writing, by name for reading.

use std::{
    any::{Any, TypeId, type_name},
    collections::BTreeMap,
    fmt::Debug,
    sync::Arc,
};

use es_core::{BoxFuture, PersistenceError, Transcoding};
use serde::{Deserialize, de::IntoDeserializer};

use crate::failure::Failure;

/// Ordered maps: registries are small, and a `TypeId` or a short name is compared faster than hashed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    by_type: BTreeMap<TypeId, Arc<dyn ErasedTranscoding>>,
    /// A name may be used for values of several types; the expected type selects one.
    by_name: BTreeMap<String, BTreeMap<TypeId, Arc<dyn ErasedTranscoding>>>,
}

impl Registry {
    /// Adds a transcoding, in place of another for the same type.
    ///
    /// The other's name, if that is different, stays readable.
    pub(crate) fn register<C: Transcoding>(&mut self, transcoding: C) {
        let value_type = TypeId::of::<C::Value>();
        let name = transcoding.name().to_owned();
        let transcoding = Arc::new(transcoding);
        self.by_name.entry(name).or_default().insert(value_type, transcoding.clone());
        self.by_type.insert(value_type, transcoding);
    }

    /// The transcoding that writes values of type `T`.
    pub(crate) fn writer<T: 'static>(&self) -> Result<&dyn ErasedTranscoding, PersistenceError> {
        match self.by_type.get(&TypeId::of::<T>()) {
            Some(transcoding) => Ok(&**transcoding),
            None => Err(unregistered_type(type_name::<T>())),
        }
    }

    /// Returns the transcoding that reads a `T` from a representation with this name.
    pub(crate) fn reader<T: 'static>(&self, name: &str) -> Result<&dyn ErasedTranscoding, PersistenceError> {
        // Usually the type is still written under the name that it is read by, which is found with one
        // search.
        if let Some(transcoding) = self.by_type.get(&TypeId::of::<T>()).filter(|found| found.tag() == name) {
            return Ok(&**transcoding);
        }
        match self.named(name)?.get(&TypeId::of::<T>()) {
            Some(transcoding) => Ok(&**transcoding),
            None => Err(PersistenceError::data(format!(
                "data serialized with name '{name}' stands where an object of type {} is expected",
                type_name::<T>()
            ))),
        }
    }

    /// Loads what the transcodings lacked.
    pub(crate) async fn load_missing(&self) -> Result<(), PersistenceError> {
        for transcoding in self.by_name.values().flat_map(BTreeMap::values) {
            transcoding.load_missing().await?;
        }
        Ok(())
    }

    /// The transcodings of a name, by the type of their values.
    pub(crate) fn named(
        &self,
        name: &str,
    ) -> Result<&BTreeMap<TypeId, Arc<dyn ErasedTranscoding>>, PersistenceError> {
        self.by_name.get(name).ok_or_else(|| {
            PersistenceError::programming(format!(
                "Data serialized with name '{name}' is not deserializable. \
                 Please register a custom transcoding for this type."
            ))
        })
    }
}

/// The error for a type without a transcoding, with the message of the Python library.
pub(crate) fn unregistered_type(type_name: &str) -> PersistenceError {
    PersistenceError::programming(format!(
        "Object of type {type_name} is not serializable. \
         Please define and register a custom transcoding for this type."
    ))
}

/// A [`Transcoding`] whose types are erased, so that a registry can hold it.
pub(crate) trait ErasedTranscoding: Any + Debug + Send + Sync {
    fn tag(&self) -> &str;

    /// Passes the representation of a value to `write`.
    fn represent(
        &self,
        value: &dyn Any,
        write: &mut dyn FnMut(&dyn erased_serde::Serialize),
    ) -> Result<(), PersistenceError>;

    /// Puts the value of a representation into `value`, an `Option` of the value's type.
    fn restore(
        &self,
        representation: &mut dyn erased_serde::Deserializer<'_>,
        value: &mut dyn Any,
        failure: &Failure,
    ) -> Result<(), erased_serde::Error>;

    /// Returns whether every representation is a text, which [`restore_text`](Self::restore_text) reads.
    fn reads_text(&self) -> bool;

    /// [`restore`](Self::restore) of a text, without an erased deserializer, which takes
    /// longer than to parse a UUID or a date.
    fn restore_text(
        &self,
        text: &str,
        value: &mut dyn Any,
        failure: &Failure,
    ) -> Result<(), serde::de::value::Error>;

    fn load_missing(&self) -> BoxFuture<'_, ()>;
}

impl<C: Transcoding> ErasedTranscoding for C {
    fn tag(&self) -> &str {
        self.name()
    }

    fn represent(
        &self,
        value: &dyn Any,
        write: &mut dyn FnMut(&dyn erased_serde::Serialize),
    ) -> Result<(), PersistenceError> {
        let value = value.downcast_ref().ok_or_else(|| wrong_type::<C>())?;
        write(&self.encode(value)?);
        Ok(())
    }

    fn restore(
        &self,
        representation: &mut dyn erased_serde::Deserializer<'_>,
        value: &mut dyn Any,
        failure: &Failure,
    ) -> Result<(), erased_serde::Error> {
        put(self, erased_serde::deserialize(representation)?, value, failure)
    }

    fn reads_text(&self) -> bool {
        [TypeId::of::<Box<str>>(), TypeId::of::<String>()].contains(&TypeId::of::<C::Decoded>())
    }

    fn restore_text(
        &self,
        text: &str,
        value: &mut dyn Any,
        failure: &Failure,
    ) -> Result<(), serde::de::value::Error> {
        put(self, C::Decoded::deserialize(text.into_deserializer())?, value, failure)
    }

    fn load_missing(&self) -> BoxFuture<'_, ()> {
        Transcoding::load_missing(self)
    }
}

/// Puts the value of a representation into `value`, an `Option` of the value's type.
fn put<C: Transcoding, E: serde::de::Error>(
    transcoding: &C,
    representation: C::Decoded,
    value: &mut dyn Any,
    failure: &Failure,
) -> Result<(), E> {
    let fail = |error| E::custom(failure.keep(error));
    let place: &mut Option<C::Value> = value.downcast_mut().ok_or_else(|| fail(wrong_type::<C>()))?;
    *place = Some(transcoding.decode(representation).map_err(fail)?);
    Ok(())
}

/// Does not occur: the registry finds transcodings by the type of their values.
fn wrong_type<C: Transcoding>() -> PersistenceError {
    PersistenceError::internal(format!(
        "the transcoding for {} was given another type",
        type_name::<C::Value>()
    ))
}

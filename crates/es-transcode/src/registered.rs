//! The marker of fields whose type has a registered transcoding.

use std::{any::type_name, fmt, marker::PhantomData, rc::Rc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
    ser::Error as _,
};
use serde_json::value::RawValue;
use serde_with::{DeserializeAs, SerializeAs};

use crate::{
    RawJson,
    json_text::{MAX_DEPTH, depth},
    registry::ErasedTranscoding,
    scope::Scope,
};

/// Marks a field whose type has a transcoding that is registered with the
/// [`JsonTranscoder`](crate::JsonTranscoder).
///
/// Where no transcoder is at work, as in an HTTP API with serde_json, the field is written and read in the
/// form that its type itself has with serde: a UUID with dashes, say. Types without such a form are marked
/// with [`RegisteredOnly`].
///
/// It goes where [`serde_with`] expects a type: `#[serde_as(as = "Registered")]`, and within other
/// types, such as `Vec<Registered>`, `Option<Registered>`, `HashMap<_, Registered>`, `&Registered`.
///
/// ```
/// use es_transcode::{Registered, serde_with::serde_as};
/// use es_core::{serde::{Deserialize, Serialize}, uuid::Uuid};
///
/// #[serde_as(crate = "es_transcode::serde_with")]
/// #[derive(Serialize, Deserialize)]
/// # #[serde(crate = "es_core::serde")]
/// struct Transferred {
///     #[serde_as(as = "Registered")]
///     from: Uuid,
///     #[serde_as(as = "Vec<Registered>")]
///     to: Vec<Uuid>,
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Registered;

/// Marks a field as [`Registered`] does, and needs no serde form of its type: without a transcoder at work,
/// writing and reading it are errors.
#[derive(Clone, Copy, Debug)]
pub struct RegisteredOnly;

const NO_VALUE: &str = "the transcoding gave no value";

/// The JSON object of a value that JSON lacks.
#[derive(Serialize)]
pub(crate) struct Tagged<'a, D: ?Sized> {
    #[serde(rename = "_type_")]
    pub(crate) name: &'a str,
    #[serde(rename = "_data_")]
    pub(crate) data: &'a D,
}

impl<D: Serialize + ?Sized> Tagged<'_, D> {
    fn write<S: Serializer>(&self, scope: &Rc<Scope>, serializer: S) -> Result<S::Ok, S::Error> {
        let is_buffered = scope.needs_buffering();
        let _nested = scope.nest();
        if !is_buffered {
            return self.serialize(serializer);
        }
        RawJson::encode::<_, S::Error>(self)?.serialize(serializer)
    }
}

impl<T: Serialize + 'static> SerializeAs<T> for Registered {
    fn serialize_as<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        match Scope::current() {
            Some(scope) => write(value, &scope, serializer),
            None => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de> + 'static> DeserializeAs<'de, T> for Registered {
    fn deserialize_as<D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        match Scope::current() {
            Some(scope) => read(&scope, deserializer),
            None => T::deserialize(deserializer),
        }
    }
}

impl<T: 'static> SerializeAs<T> for RegisteredOnly {
    fn serialize_as<S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let scope = Scope::current().ok_or_else(|| S::Error::custom(Scope::MISSING))?;
        write(value, &scope, serializer)
    }
}

impl<'de, T: 'static> DeserializeAs<'de, T> for RegisteredOnly {
    fn deserialize_as<D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let scope = Scope::current().ok_or_else(|| D::Error::custom(Scope::MISSING))?;
        read(&scope, deserializer)
    }
}

fn write<T: 'static, S: Serializer>(value: &T, scope: &Rc<Scope>, serializer: S) -> Result<S::Ok, S::Error> {
    let fail = |error| S::Error::custom(scope.failure.keep(error));
    let transcoding = scope.registry.writer::<T>().map_err(fail)?;
    let mut serializer = Some(serializer);
    let mut written = None;
    let mut write = |data: &dyn erased_serde::Serialize| {
        let tagged = Tagged { name: transcoding.tag(), data };
        written = serializer.take().map(|serializer| tagged.write(scope, serializer));
    };
    transcoding.represent(value, &mut write).map_err(fail)?;
    written.unwrap_or_else(|| Err(S::Error::custom("the transcoding gave no representation")))
}

fn read<'de, T: 'static, D: Deserializer<'de>>(scope: &Rc<Scope>, deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_map(TaggedVisitor { scope, value: PhantomData })
}

/// Reads a tagged object, the name first or last, into the type that is expected.
struct TaggedVisitor<'s, T> {
    scope: &'s Scope,
    value: PhantomData<T>,
}

impl<'de, T: 'static> Visitor<'de> for TaggedVisitor<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of `_type_` and `_data_` for a value of type {}", type_name::<T>())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let name = NameSeed { scope: self.scope, value: PhantomData::<T> };
        let value = match map.next_key()? {
            Some(Key::Type) => {
                let transcoding = map.next_value_seed(name)?;
                expect(&mut map, Key::Data)?;
                map.next_value_seed(DataSeed { scope: self.scope, transcoding, value: PhantomData })?
            }
            Some(Key::Data) => {
                let data: &RawValue = map.next_value()?;
                expect(&mut map, Key::Type)?;
                let transcoding = map.next_value_seed(name)?;
                DataSeed { scope: self.scope, transcoding, value: PhantomData }.read_json(data)?
            }
            _ => return Err(not_tagged()),
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(value),
            Some(_) => Err(not_tagged()),
        }
    }
}

fn expect<'de, A: MapAccess<'de>>(map: &mut A, key: Key) -> Result<(), A::Error> {
    match map.next_key::<Key>()? {
        Some(found) if found == key => Ok(()),
        _ => Err(not_tagged()),
    }
}

fn not_tagged<E: serde::de::Error>() -> E {
    E::custom("expected an object of exactly `_type_` and `_data_`")
}

#[derive(Deserialize, PartialEq)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "_type_")]
    Type,
    #[serde(rename = "_data_")]
    Data,
    #[serde(other)]
    Other,
}

/// Reads a name, and finds the transcoding that reads a `T` under it.
struct NameSeed<'s, T> {
    scope: &'s Scope,
    value: PhantomData<T>,
}

impl<'de, 's, T: 'static> DeserializeSeed<'de> for NameSeed<'s, T> {
    type Value = &'s dyn ErasedTranscoding;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s, T: 'static> Visitor<'_> for NameSeed<'s, T> {
    type Value = &'s dyn ErasedTranscoding;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a transcoding")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        self.scope.registry.reader::<T>(name).map_err(|error| E::custom(self.scope.failure.keep(error)))
    }
}

/// Reads the representation of a `T`.
pub(crate) struct DataSeed<'s, T> {
    pub(crate) scope: &'s Scope,
    pub(crate) transcoding: &'s dyn ErasedTranscoding,
    pub(crate) value: PhantomData<T>,
}

impl<T: 'static> DataSeed<'_, T> {
    pub(crate) fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let _nested = self.scope.nest();
        let mut value: Option<T> = None;
        let mut representation = <dyn erased_serde::Deserializer<'_>>::erase(deserializer);
        self.transcoding
            .restore(&mut representation, &mut value, &self.scope.failure)
            .map_err(D::Error::custom)?;
        value.ok_or_else(|| D::Error::custom(NO_VALUE))
    }

    /// Reads a representation from text of its own.
    ///
    /// serde_json bounds the depth of each text by itself; so that a chain of such texts cannot exhaust
    /// the stack, the whole of the first is measured.
    fn read_json<E: serde::de::Error>(self, json: &RawValue) -> Result<T, E> {
        if depth(json.get()) > MAX_DEPTH {
            return Err(E::custom("recursion limit exceeded"));
        }
        self.read(&mut serde_json::Deserializer::from_str(json.get())).map_err(E::custom)
    }
}

impl<'de, T: 'static> DeserializeSeed<'de> for DataSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        if self.transcoding.reads_text() {
            return deserializer.deserialize_str(self);
        }
        if self.scope.needs_buffering() {
            return self.read_json(<&RawValue>::deserialize(deserializer)?);
        }
        self.read(deserializer)
    }
}

impl<T: 'static> Visitor<'_> for DataSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        let mut value: Option<T> = None;
        self.transcoding.restore_text(text, &mut value, &self.scope.failure).map_err(E::custom)?;
        value.ok_or_else(|| E::custom(NO_VALUE))
    }
}

//! The marker of fields whose type has a registered transcoding.

use std::{
    any::{Any, type_name},
    convert::Infallible,
    fmt,
    marker::PhantomData,
    rc::Rc,
};

use es_core::{PersistenceError, Transcoding};
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

/// Marks a field as [`RegisteredOnly`] does, and names the type of the transcoding.
///
/// If the transcoder has that one for the type of the field, it is called without dynamic dispatch, which
/// takes less time for a representation that is not a text.
#[derive(Debug)]
pub struct RegisteredAs<C>(PhantomData<fn() -> C>);

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

impl<C: Transcoding> SerializeAs<C::Value> for RegisteredAs<C> {
    fn serialize_as<S: Serializer>(value: &C::Value, serializer: S) -> Result<S::Ok, S::Error> {
        let scope = Scope::current().ok_or_else(|| S::Error::custom(Scope::MISSING))?;
        let fail = |error| S::Error::custom(scope.failure.keep(error));
        let transcoding = scope.registry.writer::<C::Value>().map_err(fail)?;
        let Some(transcoding) = downcast::<C>(transcoding) else { return write(value, &scope, serializer) };
        let data = &transcoding.encode(value).map_err(fail)?;
        Tagged { name: transcoding.name(), data }.serialize(serializer)
    }
}

impl<'de, C: Transcoding> DeserializeAs<'de, C::Value> for RegisteredAs<C> {
    fn deserialize_as<D: Deserializer<'de>>(deserializer: D) -> Result<C::Value, D::Error> {
        let scope = Scope::current().ok_or_else(|| D::Error::custom(Scope::MISSING))?;
        deserializer.deserialize_map(TaggedVisitor { scope: &scope, expected: PhantomData::<C> })
    }
}

fn downcast<C: Transcoding>(transcoding: &dyn ErasedTranscoding) -> Option<&C> {
    (transcoding as &dyn Any).downcast_ref()
}

/// The type of the transcoding of a field that names none. No transcoding is of this type.
pub(crate) struct Unnamed<T>(Infallible, PhantomData<fn() -> T>);

impl<T> fmt::Debug for Unnamed<T> {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}

impl<T: 'static> Transcoding for Unnamed<T> {
    type Value = T;
    type Encoded<'a> = ();
    type Decoded = ();

    fn name(&self) -> &str {
        match self.0 {}
    }

    fn encode(&self, _: &T) -> Result<(), PersistenceError> {
        match self.0 {}
    }

    fn decode(&self, (): ()) -> Result<T, PersistenceError> {
        match self.0 {}
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
    deserializer.deserialize_map(TaggedVisitor { scope, expected: PhantomData::<Unnamed<T>> })
}

/// Reads a tagged object, the name first or last, into the type that is expected.
struct TaggedVisitor<'s, C> {
    scope: &'s Scope,
    expected: PhantomData<C>,
}

impl<'de, C: Transcoding> Visitor<'de> for TaggedVisitor<'_, C> {
    type Value = C::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of `_type_` and `_data_` for a value of type {}", type_name::<C::Value>())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<C::Value, A::Error> {
        let Self { scope, expected } = self;
        let name = NameSeed { scope, value: PhantomData::<C::Value> };
        let value = match map.next_key()? {
            Some(Key::Type) => {
                let transcoding = map.next_value_seed(name)?;
                expect(&mut map, Key::Data)?;
                map.next_value_seed(DataSeed { scope, transcoding, expected })?
            }
            Some(Key::Data) => {
                let data: &RawValue = map.next_value()?;
                expect(&mut map, Key::Type)?;
                let transcoding = map.next_value_seed(name)?;
                DataSeed { scope, transcoding, expected }.read_json(data)?
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

/// Reads the representation of a value.
pub(crate) struct DataSeed<'s, C> {
    pub(crate) scope: &'s Scope,
    pub(crate) transcoding: &'s dyn ErasedTranscoding,
    /// The expected type of the transcoding; the transcoding may be of another one.
    pub(crate) expected: PhantomData<C>,
}

impl<C: Transcoding> DataSeed<'_, C> {
    pub(crate) fn read<'de, D: Deserializer<'de>>(self, deserializer: D) -> Result<C::Value, D::Error> {
        let _nested = self.scope.nest();
        let mut value: Option<C::Value> = None;
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
    fn read_json<E: serde::de::Error>(self, json: &RawValue) -> Result<C::Value, E> {
        if depth(json.get()) > MAX_DEPTH {
            return Err(E::custom("recursion limit exceeded"));
        }
        self.read(&mut serde_json::Deserializer::from_str(json.get())).map_err(E::custom)
    }
}

impl<'de, C: Transcoding> DeserializeSeed<'de> for DataSeed<'_, C> {
    type Value = C::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C::Value, D::Error> {
        if let Some(transcoding) = downcast::<C>(self.transcoding) {
            let value = transcoding.decode(C::Decoded::deserialize(deserializer)?);
            return value.map_err(|error| D::Error::custom(self.scope.failure.keep(error)));
        }
        if self.transcoding.reads_text() {
            return deserializer.deserialize_str(self);
        }
        if self.scope.needs_buffering() {
            return self.read_json(<&RawValue>::deserialize(deserializer)?);
        }
        self.read(deserializer)
    }
}

impl<C: Transcoding> Visitor<'_> for DataSeed<'_, C> {
    type Value = C::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<C::Value, E> {
        let mut value: Option<C::Value> = None;
        self.transcoding.restore_text(text, &mut value, &self.scope.failure).map_err(E::custom)?;
        value.ok_or_else(|| E::custom(NO_VALUE))
    }
}

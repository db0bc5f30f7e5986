//! Encodes any value that serde serializes as a struct or a map as the attributes of an event.

use std::fmt::{self, Display, Write};

use serde::{
    Serialize, Serializer,
    ser::{Error, Impossible, SerializeMap, SerializeStruct},
};

/// The names that the mapper writes itself, or that are columns.
const RESERVED: [&str; 5] =
    ["timestamp", "originator_id", "originator_version", "class_version", "_metadata_"];

/// Writes the fields of a struct, or the entries of a map, as attributes of an event: an implementation of
/// [`Event::encode`](crate::Event::encode) for types that derive `Serialize`.
///
/// Costs the same as writing the fields one by one; nothing is collected in between.
///
/// ```
/// use es_core::{encode_attributes, serde::{Serialize, ser::SerializeMap}};
///
/// #[derive(Serialize)]
/// # #[serde(crate = "es_core::serde")]
/// struct Opened {
///     owner: String,
/// }
///
/// fn encode<M: SerializeMap>(opened: &Opened, state: &mut M) -> Result<(), M::Error> {
///     encode_attributes(opened, state)
/// }
/// ```
///
/// # Errors
/// - The value is not serialized as a struct or a map, so that its parts have no names.
/// - A name is reserved: `timestamp`, `originator_id`, `originator_version`, `class_version`, `_metadata_`.
/// - Any error of the serializer.
pub fn encode_attributes<V: Serialize + ?Sized, M: SerializeMap>(
    attributes: &V,
    state: &mut M,
) -> Result<(), M::Error> {
    attributes.serialize(AttributeSerializer(state))
}

fn check_name<E: Error>(name: &str) -> Result<(), E> {
    if RESERVED.contains(&name) {
        return Err(E::custom(format_args!("`{name}` is reserved and cannot be the name of an attribute")));
    }
    Ok(())
}

/// Accepts a struct or a map, and writes it into the map that is already open.
struct AttributeSerializer<'m, M>(&'m mut M);

fn nameless<T, E: Error>(what: impl Display) -> Result<T, E> {
    Err(E::custom(format_args!("the attributes of an event are a struct or a map, not {what}")))
}

macro_rules! refuse {
    ($($method:ident($($argument:ty),*) -> $ok:ty = $what:literal;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$ok, M::Error> {
            nameless($what)
        }
    )*};
}

impl<'m, M: SerializeMap> Serializer for AttributeSerializer<'m, M> {
    type Ok = ();
    type Error = M::Error;
    type SerializeSeq = Impossible<(), M::Error>;
    type SerializeTuple = Impossible<(), M::Error>;
    type SerializeTupleStruct = Impossible<(), M::Error>;
    type SerializeTupleVariant = Impossible<(), M::Error>;
    type SerializeMap = Attributes<'m, M>;
    type SerializeStruct = Attributes<'m, M>;
    type SerializeStructVariant = Impossible<(), M::Error>;

    fn serialize_map(self, _: Option<usize>) -> Result<Attributes<'m, M>, M::Error> {
        Ok(Attributes(self.0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Attributes<'m, M>, M::Error> {
        Ok(Attributes(self.0))
    }

    // Units, options and newtypes could be written, but serde would not read them back from an object.
    refuse! {
        serialize_bool(bool) -> () = "a boolean";
        serialize_i8(i8) -> () = "a number";
        serialize_i16(i16) -> () = "a number";
        serialize_i32(i32) -> () = "a number";
        serialize_i64(i64) -> () = "a number";
        serialize_i128(i128) -> () = "a number";
        serialize_u8(u8) -> () = "a number";
        serialize_u16(u16) -> () = "a number";
        serialize_u32(u32) -> () = "a number";
        serialize_u64(u64) -> () = "a number";
        serialize_u128(u128) -> () = "a number";
        serialize_f32(f32) -> () = "a number";
        serialize_f64(f64) -> () = "a number";
        serialize_char(char) -> () = "a character";
        serialize_str(&str) -> () = "a text";
        serialize_bytes(&[u8]) -> () = "bytes";
        serialize_none() -> () = "an option";
        serialize_unit() -> () = "a unit";
        serialize_unit_struct(&'static str) -> () = "a unit";
        serialize_unit_variant(&'static str, u32, &'static str) -> () = "an enum";
        serialize_seq(Option<usize>) -> Self::SerializeSeq = "a sequence";
        serialize_tuple(usize) -> Self::SerializeTuple = "a tuple";
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct = "a tuple";
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant = "an enum";
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant = "an enum";
    }

    fn serialize_some<V: Serialize + ?Sized>(self, _: &V) -> Result<(), M::Error> {
        nameless("an option")
    }

    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: &V,
    ) -> Result<(), M::Error> {
        nameless(format_args!("a newtype, such as `{name}` without `#[serde(transparent)]`"))
    }

    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &V,
    ) -> Result<(), M::Error> {
        nameless("an enum")
    }
}

/// Writes names and values into the map.
struct Attributes<'m, M>(&'m mut M);

impl<M: SerializeMap> SerializeStruct for Attributes<'_, M> {
    type Ok = ();
    type Error = M::Error;

    fn serialize_field<V: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &V,
    ) -> Result<(), M::Error> {
        check_name(name)?;
        self.0.serialize_entry(name, value)
    }

    fn end(self) -> Result<(), M::Error> {
        Ok(())
    }
}

impl<M: SerializeMap> SerializeMap for Attributes<'_, M> {
    type Ok = ();
    type Error = M::Error;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), M::Error> {
        let mut name = String::new();
        // The serializer of the format validates keys that are not text.
        if write!(name, "{}", Shown(key)).is_ok() {
            check_name(&name)?;
        }
        self.0.serialize_key(key)
    }

    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), M::Error> {
        self.0.serialize_value(value)
    }

    fn end(self) -> Result<(), M::Error> {
        Ok(())
    }
}

/// Displays a key by serde's `Serializer` for formatters.
struct Shown<'k, K: ?Sized>(&'k K);

impl<K: Serialize + ?Sized> Display for Shown<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}

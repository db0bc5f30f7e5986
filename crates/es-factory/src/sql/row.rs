//! Rows of queries, and how they are deserialized.

use std::{fmt, sync::Arc};

use es_core::{
    PersistenceError,
    serde::{
        Deserializer,
        de::{
            DeserializeOwned, IntoDeserializer, Visitor,
            value::{Error, MapDeserializer, SeqDeserializer},
        },
    },
    time::format_description::well_known::Rfc3339,
};
use serde::{de::Error as _, forward_to_deserialize_any};

use crate::SqlValue;

/// A row of a query, which a [`Backend`](crate::Backend) returns.
///
/// `Debug` does not show the values.
#[derive(Clone, PartialEq)]
pub struct SqlRow {
    names: Arc<[String]>,
    values: Vec<SqlValue>,
}

impl SqlRow {
    /// A row with the names of its columns, which the rows of a query share.
    pub fn new(names: Arc<[String]>, values: Vec<SqlValue>) -> Self {
        Self { names, values }
    }

    /// Deserializes the row.
    pub(crate) fn deserialize<T: DeserializeOwned>(self) -> Result<T, PersistenceError> {
        T::deserialize(self).map_err(|error| {
            PersistenceError::data("a row cannot be deserialized, or not as this type").with_source(error)
        })
    }

    /// Returns the value of the only column.
    fn into_value(self) -> Result<Value, Error> {
        match <[SqlValue; 1]>::try_from(self.values) {
            Ok([value]) => Ok(Value(value)),
            Err(values) => {
                Err(Error::custom(format_args!("the row has {} columns, and not one", values.len())))
            }
        }
    }
}

impl fmt::Debug for SqlRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.names.iter().zip(&self.values)).finish()
    }
}

/// A struct or a map by the names of the columns, a tuple by their order, any other type from the only
/// column.
impl<'de> Deserializer<'de> for SqlRow {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.into_value()?.deserialize_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.into_value()?.deserialize_bool(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.into_value()?.deserialize_option(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.into_value()?.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let columns = self.names.iter().map(String::as_str).zip(self.values.into_iter().map(Value));
        visitor.visit_map(MapDeserializer::new(columns))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.values.into_iter().map(Value)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        identifier ignored_any
    }
}

/// A value that is deserialized.
struct Value(SqlValue);

impl<'de> Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            SqlValue::Bool(Some(value)) => visitor.visit_bool(value),
            SqlValue::Integer(Some(value)) => visitor.visit_i64(value),
            SqlValue::Real(Some(value)) => visitor.visit_f64(value),
            SqlValue::Text(Some(value)) => visitor.visit_string(value),
            SqlValue::Bytes(Some(value)) => visitor.visit_byte_buf(value),
            SqlValue::Uuid(Some(value)) => visitor.visit_string(value.to_string()),
            SqlValue::Timestamp(Some(value)) => {
                visitor.visit_string(value.format(&Rfc3339).map_err(Error::custom)?)
            }
            // A null of any type.
            _ => visitor.visit_unit(),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            // SQLite has no booleans.
            SqlValue::Integer(Some(value @ (0 | 1))) => visitor.visit_bool(value == 1),
            value => Self(value).deserialize_any(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            SqlValue::Bytes(Some(value)) => visitor.visit_seq(SeqDeserializer::new(value.into_iter())),
            value => Self(value).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            null if null.is_null() => visitor.visit_none(),
            value => visitor.visit_some(Self(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            SqlValue::Text(Some(value)) => visitor.visit_enum(value.into_deserializer()),
            value => Self(value).deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

//! Reading a [`Value`].

use std::{any::TypeId, fmt};

use bigdecimal::BigDecimal;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::Value;
use crate::{json_text::numbers, scope::Scope};

/// serde hands integers beyond 64 bits on as floats, so their text is read beside it.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let mut numbers = numbers(json);
        ValueReader(&mut numbers)
            .deserialize(&mut serde_json::Deserializer::from_str(json))
            .map_err(D::Error::custom)
    }
}

/// Reads a value; the iterator gives the spelling of each number that it meets.
struct ValueReader<'n, N>(&'n mut N);

impl<'de, 'n, N: Iterator<Item = &'n str>> DeserializeSeed<'de> for ValueReader<'_, N> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 'n, N: Iterator<Item = &'n str>> Visitor<'de> for ValueReader<'_, N> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.0.next();
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.0.next();
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let spelling = self.0.next().unwrap_or_default();
        if spelling.contains(['.', 'e', 'E']) {
            return Ok(Value::Float(value));
        }
        spelling.parse().map(Value::Int).map_err(E::custom)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(ValueReader(&mut *self.0))? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            entries.push((key, map.next_value_seed(ValueReader(&mut *self.0))?));
        }
        match <[_; 2]>::try_from(entries) {
            Ok([(first, name), (second, data)]) if first == "_type_" && second == "_data_" => {
                read_tagged(name, data)
            }
            Ok([(first, data), (second, name)]) if first == "_data_" && second == "_type_" => {
                read_tagged(name, data)
            }
            Ok(plain) => Ok(Value::Map(plain.into())),
            Err(plain) => Ok(Value::Map(plain)),
        }
    }
}

/// The value of a tagged object: one of the standard types where the name's transcoding gives one.
fn read_tagged<E: Error>(name: Value, data: Value) -> Result<Value, E> {
    let Value::Str(name) = name else { return Err(E::custom("`_type_` is not text")) };
    let scope = Scope::current().ok_or_else(|| E::custom(Scope::MISSING))?;
    let transcodings = scope.registry().named(&name).map_err(|error| E::custom(scope.fail(error)))?;
    let mut refused = None;
    for (value_type, read) in STANDARD_TYPES {
        if !transcodings.contains_key(&value_type()) {
            continue;
        }
        match read(&scope, &name, &data) {
            Ok(value) => return Ok(value),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        None => Ok(Value::Custom { name, data: Box::new(data) }),
        Some(error) => Err(E::custom(error)),
    }
}

type Read = fn(&Scope, &str, &Value) -> Result<Value, serde_json::Error>;

/// The types that have a variant of their own. Date-times with and without an offset share a name:
/// each refuses what is the other's.
const STANDARD_TYPES: [(fn() -> TypeId, Read); 4] = [
    (TypeId::of::<Uuid>, read::<Uuid>),
    (TypeId::of::<BigDecimal>, read::<BigDecimal>),
    (TypeId::of::<OffsetDateTime>, read::<OffsetDateTime>),
    (TypeId::of::<PrimitiveDateTime>, read::<PrimitiveDateTime>),
];

fn read<T: Into<Value> + 'static>(
    scope: &Scope,
    name: &str,
    data: &Value,
) -> Result<Value, serde_json::Error> {
    let transcoding = scope.registry().reader::<T>(name).map_err(|error| Error::custom(scope.fail(error)))?;
    let json = serde_json::to_string(data)?;
    let mut deserializer = serde_json::Deserializer::from_str(&json);
    let mut value: Option<T> = None;
    transcoding
        .restore(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut deserializer), &mut value, scope)
        .map_err(Error::custom)?;
    value.map(Into::into).ok_or_else(|| Error::custom("the transcoding gave no value"))
}

//! Reads a [`Value`].

use std::{any::TypeId, collections::BTreeMap, fmt, marker::PhantomData, sync::Arc};

use bigdecimal::BigDecimal;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

use super::Value;
use crate::{
    json_text::{Token, tokens},
    registered::{DataSeed, Unnamed},
    registry::ErasedTranscoding,
    scope::Scope,
};

/// serde passes integers beyond 64 bits as floats, so their text is read separately.
///
/// The same applies for another reason: if any crate of a program enables serde_json's feature
/// `arbitrary_precision`, it is enabled for this crate, and serde passes numbers as maps.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        ValueReader(&mut tokens(json))
            .deserialize(&mut serde_json::Deserializer::from_str(json))
            .map_err(D::Error::custom)
    }
}

/// Reads a value; the iterator returns its numbers and objects in order.
struct ValueReader<'t, I>(&'t mut I);

impl<'de, 't, I: Iterator<Item = Token<'t>>> DeserializeSeed<'de> for ValueReader<'_, I> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, 't, I: Iterator<Item = Token<'t>>> Visitor<'de> for ValueReader<'_, I> {
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

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        match self.0.next() {
            Some(Token::Number(spelling)) => number(spelling),
            _ => Err(E::custom("the number has no text")),
        }
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
        if let Some(Token::Number(spelling)) = self.0.next() {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return number(spelling);
        }
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

fn number<E: Error>(spelling: &str) -> Result<Value, E> {
    if !spelling.contains(['.', 'e', 'E']) {
        return spelling.parse().map(Value::Int).map_err(E::custom);
    }
    match spelling.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Value::Float(value)),
        _ => Err(E::custom("the number is out of the range of a float")),
    }
}

/// The value of a tagged object: one of the standard types where the name's transcoding gives one.
fn read_tagged<E: Error>(name: Value, data: Value) -> Result<Value, E> {
    let Value::Str(name) = name else { return Err(E::custom("`_type_` is not text")) };
    let scope = Scope::current().ok_or_else(|| E::custom(Scope::MISSING))?;
    let transcodings = scope.registry.named(&name).map_err(|error| E::custom(scope.failure.keep(error)))?;
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

/// Returns whether a value with these transcodings is read as one of their types.
pub(super) fn has_standard_type(transcodings: &BTreeMap<TypeId, Arc<dyn ErasedTranscoding>>) -> bool {
    STANDARD_TYPES.iter().any(|(value_type, _)| transcodings.contains_key(&value_type()))
}

type Read = fn(&Scope, &str, &Value) -> Result<Value, serde_json::Error>;

/// The types that have a variant of their own. Date-times with and without an offset share a name:
/// each rejects the values of the other.
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
    let transcoding = scope.registry.reader::<T>(name);
    let transcoding = transcoding.map_err(|error| Error::custom(scope.failure.keep(error)))?;
    let json = serde_json::to_string(data)?;
    let seed = DataSeed { scope, transcoding, expected: PhantomData::<Unnamed<T>> };
    seed.read(&mut serde_json::Deserializer::from_str(&json)).map(Into::into)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

    use serde::de::value::{Error, MapDeserializer};

    use super::*;

    /// As serde_json hands numbers on where some crate has turned `arbitrary_precision` on. They were
    /// read as maps of this key once.
    fn read_precise(json: &str) -> Result<Value, Error> {
        let number = [("$serde_json::private::Number", json)].into_iter();
        ValueReader(&mut tokens(json)).visit_map(MapDeserializer::new(number))
    }

    #[test]
    fn numbers_of_arbitrary_precision_are_numbers() {
        assert_eq!(read_precise("2.5").unwrap(), Value::Float(2.5));
        assert_eq!(read_precise("-1E-7").unwrap(), Value::Float(-1e-7));
        let large = "1180591620717411303424";
        assert_eq!(read_precise(large).unwrap(), Value::Int(large.parse().unwrap()));
        assert!(read_precise("1e400").is_err());
        assert!(read_precise(&"9".repeat(309)).is_err());
    }

    #[test]
    fn an_object_that_looks_like_such_a_number_is_an_object() {
        let json = r#"{"$serde_json::private::Number":"2.5"}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value.get("$serde_json::private::Number"), Some(&"2.5".into()));
    }
}

//! Writes values.

use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap},
};
use serde_with::SerializeAs;

use super::{Value, read::has_standard_type};
use crate::{Registered, registered::Tagged, registry::unregistered_type, scope::Scope};

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => value.serialize(serializer),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Str(value) => serializer.serialize_str(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(entries) => write_map(entries, serializer),
            Self::Uuid(value) => Registered::serialize_as(value, serializer),
            Self::Datetime(value) => Registered::serialize_as(value, serializer),
            Self::NaiveDatetime(value) => Registered::serialize_as(value, serializer),
            Self::Decimal(value) => Registered::serialize_as(value, serializer),
            Self::Custom { name, data } => write_custom(name, data, serializer),
        }
    }
}

fn write_map<S: Serializer>(entries: &[(String, Value)], serializer: S) -> Result<S::Ok, S::Error> {
    if let [(first, _), (second, _)] = entries
        && matches!((first.as_str(), second.as_str()), ("_type_", "_data_") | ("_data_", "_type_"))
    {
        return Err(S::Error::custom(
            "a map of exactly `_type_` and `_data_` would be read as a value of a transcoding",
        ));
    }
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (key, value) in entries {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

fn write_custom<S: Serializer>(name: &str, data: &Value, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(scope) = Scope::current() else { return data.serialize(serializer) };
    let Ok(transcodings) = scope.registry.named(name) else {
        return Err(S::Error::custom(scope.failure.keep(unregistered_type(name))));
    };
    if has_standard_type(transcodings) {
        return Err(S::Error::custom(format_args!("values named '{name}' have a variant of their own")));
    }
    Tagged { name, data }.serialize(serializer)
}

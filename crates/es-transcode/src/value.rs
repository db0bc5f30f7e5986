//! Values whose types are known only when they are read.

mod integer;
mod read;
mod write;

use bigdecimal::BigDecimal;
pub use integer::Integer;
use time::{OffsetDateTime, PrimitiveDateTime};
use uuid::Uuid;

/// A value whose type is known only when it is read, such as an element of a Python `list` of mixed
/// content.
///
/// A value that was read is written with the same meaning, and with the bytes that the Python library
/// writes for it: integers of any size, the order of keys, exponents of decimals are kept.
///
/// Plain serde writes a value of a transcoding as [`Registered`](crate::Registered) does, and reads none.
///
/// It can be the type of a field, or be within one. Not through serde's `flatten`, `untagged` and
/// `tag`, which lose large integers before this type reads them; that is an error, not a wrong value.
///
/// ```
/// use es_core::Transcoder;
/// use es_transcode::{JsonTranscoder, Value, uuid::Uuid};
/// use std::marker::PhantomData;
///
/// let json = br#"[{"_type_":"uuid_hex","_data_":"00000000000000000000000000000005"},[1180591620717411303424]]"#;
/// let transcoder = JsonTranscoder::new();
/// let value = transcoder.decode(PhantomData::<Value>, json)?;
/// assert_eq!(
///     value,
///     Value::List(vec![
///         Value::Uuid(Uuid::from_u128(5)),
///         Value::List(vec![Value::Int("1180591620717411303424".parse()?)]),
///     ])
/// );
///
/// let mut written = Vec::new();
/// transcoder.encode(&value, &mut written)?;
/// assert_eq!(written, json);
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
// Exhaustive: JSON and the standard transcodings have no other values, and the purpose of this type is to
// match all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Python's `None`.
    #[default]
    Null,
    /// A Boolean.
    Bool(bool),
    /// An integer of any size.
    Int(Integer),
    /// A floating point number; only finite ones can be written.
    Float(f64),
    /// Text.
    Str(String),
    /// Values in order; a Python tuple is read as one.
    List(Vec<Value>),
    /// Values by name, in the stored order.
    ///
    /// A map of exactly `_type_` and `_data_` cannot be written: it would be read as something else.
    Map(Vec<(String, Value)>),
    /// A UUID.
    Uuid(Uuid),
    /// A date and time with an offset from UTC.
    Datetime(OffsetDateTime),
    /// A date and time without an offset.
    NaiveDatetime(PrimitiveDateTime),
    /// A decimal.
    Decimal(BigDecimal),
    /// A value of another registered transcoding.
    Custom {
        /// The name of the transcoding; it must be registered, and not be one of those whose values
        /// have a variant of their own.
        name: String,
        /// The representation.
        data: Box<Value>,
    },
}

impl Value {
    /// The value of a name, when this is a map that has it; the last, as in Python, when several do.
    ///
    /// ```
    /// # use es_transcode::Value;
    /// let map = Value::Map(vec![("a".to_owned(), Value::Bool(true))]);
    /// assert_eq!(map.get("a"), Some(&Value::Bool(true)));
    /// assert_eq!(map.get("b"), None);
    /// assert_eq!(Value::Null.get("a"), None);
    /// ```
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}

from! {
    bool => Bool,
    i64 => Int,
    u64 => Int,
    f64 => Float,
    &str => Str,
    String => Str,
    Uuid => Uuid,
    OffsetDateTime => Datetime,
    PrimitiveDateTime => NaiveDatetime,
    BigDecimal => Decimal,
}

//! Values of parameters and columns.

use std::fmt;

use es_core::{Bytes, time::OffsetDateTime, uuid::Uuid};

/// A value of a parameter or of a column, or null; see [`Sql`](crate::Sql) for its types in the databases.
///
/// A null that was read is of the type text. `Debug` shows the type, and not the value.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum SqlValue {
    /// True or false.
    Bool(Option<bool>),
    /// An integer.
    Integer(Option<i64>),
    /// A floating-point number.
    Real(Option<f64>),
    /// A text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
    /// A UUID.
    Uuid(Option<Uuid>),
    /// A point in time.
    Timestamp(Option<OffsetDateTime>),
}

impl SqlValue {
    /// Returns whether the value is null.
    pub fn is_null(&self) -> bool {
        match self {
            Self::Bool(value) => value.is_none(),
            Self::Integer(value) => value.is_none(),
            Self::Real(value) => value.is_none(),
            Self::Text(value) => value.is_none(),
            Self::Bytes(value) => value.is_none(),
            Self::Uuid(value) => value.is_none(),
            Self::Timestamp(value) => value.is_none(),
        }
    }
}

macro_rules! from {
    ($($type:ty: $variant:ident $convert:expr,)*) => {$(
        impl From<$type> for SqlValue {
            fn from(value: $type) -> Self {
                Self::$variant(Some($convert(value)))
            }
        }

        impl From<Option<$type>> for SqlValue {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map($convert))
            }
        }
    )*};
}

from! {
    bool: Bool bool::from,
    i8: Integer i64::from,
    i16: Integer i64::from,
    i32: Integer i64::from,
    i64: Integer i64::from,
    u8: Integer i64::from,
    u16: Integer i64::from,
    u32: Integer i64::from,
    f32: Real f64::from,
    f64: Real f64::from,
    &str: Text str::to_owned,
    String: Text String::from,
    &String: Text String::clone,
    Vec<u8>: Bytes Vec::from,
    &[u8]: Bytes Vec::from,
    Bytes: Bytes Vec::from,
    Uuid: Uuid Uuid::from,
    OffsetDateTime: Timestamp OffsetDateTime::from,
}

impl fmt::Debug for SqlValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool(_) => "Bool",
            Self::Integer(_) => "Integer",
            Self::Real(_) => "Real",
            Self::Text(_) => "Text",
            Self::Bytes(_) => "Bytes",
            Self::Uuid(_) => "Uuid",
            Self::Timestamp(_) => "Timestamp",
        })
    }
}

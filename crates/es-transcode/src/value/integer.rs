//! Integers of any size.

use std::{fmt, str::FromStr};

use es_core::PersistenceError;
use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

/// An integer of any size, as its decimal digits.
///
/// - It has at most [`MAX_DIGITS`](Self::MAX_DIGITS) digits, and neither a leading zero nor a negative
///   zero.
///
/// For arithmetic convert it: `i64::try_from(&integer)`, or parse its text as the type of a library
/// for large integers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Integer(Box<str>);

impl Integer {
    /// The maximum of digits of an integer: those of the range of a float, beyond which JSON numbers
    /// are refused when they are read.
    pub const MAX_DIGITS: usize = 308;

    /// The decimal digits, after a `-` when it is negative.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Integer {
    type Err = PersistenceError;

    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) when the text is not an integer, or a longer one.
    fn from_str(text: &str) -> Result<Self, PersistenceError> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => ("-", digits),
            None => ("", text),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not_an_integer());
        }
        let digits = digits.trim_start_matches('0');
        match digits.len() {
            0 => Ok(Self("0".into())),
            1..=Self::MAX_DIGITS => Ok(Self(format!("{sign}{digits}").into())),
            _ => Err(not_an_integer()),
        }
    }
}

impl fmt::Display for Integer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Integer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(small) = i64::try_from(self) {
            return serializer.serialize_i64(small);
        }
        let digits = RawValue::from_string(self.0.to_string()).map_err(S::Error::custom)?;
        digits.serialize(serializer)
    }
}

macro_rules! convert {
    ($($type:ty),*) => {$(
        impl From<$type> for Integer {
            fn from(value: $type) -> Self {
                Self(value.to_string().into())
            }
        }

        impl TryFrom<&Integer> for $type {
            type Error = PersistenceError;

            /// # Errors
            /// [`Data`](es_core::ErrorKind::Data) when the type does not hold the integer.
            fn try_from(integer: &Integer) -> Result<Self, PersistenceError> {
                integer.0.parse().map_err(|error| {
                    PersistenceError::data(concat!("the integer is no ", stringify!($type))).with_source(error)
                })
            }
        }
    )*};
}

convert!(i64, u64, i128, u128);

fn not_an_integer() -> PersistenceError {
    PersistenceError::data(format!("the text is not an integer of at most {} digits", Integer::MAX_DIGITS))
}

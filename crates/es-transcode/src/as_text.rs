//! Types of several libraries that are written as text.

use std::{fmt::Debug, marker::PhantomData};

use es_core::{PersistenceError, Transcoding};

/// Writes a date, a time of day, a date-time or a decimal of one of several libraries as text.
///
/// | name | types |
/// |---|---|
/// | `date_iso` | `time::Date`, `chrono::NaiveDate`, `jiff::civil::Date` |
/// | `time_iso` | `time::Time`, `chrono::NaiveTime`, `jiff::civil::Time` |
/// | `datetime_iso`, without an offset | `chrono::NaiveDateTime`, `jiff::civil::DateTime` |
/// | `datetime_iso`, with an offset | `chrono::DateTime` of `FixedOffset` or `Utc`, `jiff::Timestamp` |
/// | `decimal_str` | `rust_decimal::Decimal` |
///
/// The texts of dates and times of day are `2021-12-31` and `23:59:59.123456`, the others those of
/// [`DatetimeAsIso`](crate::DatetimeAsIso) and [`DecimalAsStr`](crate::DecimalAsStr).
///
/// The features `chrono`, `jiff` and `rust-decimal` compile the types of these libraries in.
/// [`JsonTranscoder::new`](crate::JsonTranscoder::new) registers all of them. Refused are, as Python's types
/// do not hold them: years outside of 1 to 9999, nanoseconds that are not whole microseconds, and leap
/// seconds.
///
/// `chrono::DateTime<Utc>` and `jiff::Timestamp` read any offset, as the same instant in UTC. A
/// `rust_decimal::Decimal` refuses decimals with more digits than it holds; trailing zeros are kept where
/// they fit.
#[derive(Debug)]
pub struct AsText<T>(PhantomData<fn() -> T>);

impl<T> AsText<T> {
    /// A transcoding of one type.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for AsText<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A type with a text form; the types of the libraries only.
pub trait TextForm: Debug + Sized + 'static {
    #[doc(hidden)]
    const NAME: &str;

    #[doc(hidden)]
    fn to_text(&self) -> Result<String, PersistenceError>;

    #[doc(hidden)]
    fn from_text(text: &str) -> Result<Self, PersistenceError>;
}

impl<T: TextForm> Transcoding for AsText<T> {
    type Value = T;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        T::NAME
    }

    fn encode(&self, value: &T) -> Result<String, PersistenceError> {
        value.to_text()
    }

    fn decode(&self, text: Box<str>) -> Result<T, PersistenceError> {
        T::from_text(&text)
    }
}

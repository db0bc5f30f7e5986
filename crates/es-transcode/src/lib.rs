//! JSON transcoder whose bytes are those of the Python `eventsourcing` library.
//!
//! A [`JsonTranscoder`] writes values with serde, straight to bytes, and reads them straight from
//! bytes. Values that JSON lacks are written by a registered [`Transcoding`](es_core::Transcoding) as
//! `{"_type_":NAME,"_data_":REPRESENTATION}`, and a representation may hold further such values. A
//! field of such a type is marked with [`Registered`]; a field whose content is known only when it is
//! read is a [`Value`].
//!
//! # Example
//! ```
//! use es_core::{Transcoder, serde::{Deserialize, Serialize}, time::OffsetDateTime};
//! use es_transcode::{JsonTranscoder, Registered, Value, bigdecimal::BigDecimal, serde_with::serde_as};
//! use std::marker::PhantomData;
//!
//! #[serde_as(crate = "es_transcode::serde_with")]
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! # #[serde(crate = "es_core::serde")]
//! struct Credited {
//!     #[serde_as(as = "Registered")]
//!     amount: BigDecimal,
//!     note: String,
//!     tags: Vec<Value>,
//! }
//!
//! let transcoder = JsonTranscoder::new();
//! let credited = Credited { amount: "1.50".parse()?, note: "salary".to_owned(), tags: vec![true.into()] };
//!
//! let mut bytes = Vec::new();
//! transcoder.encode(&credited, &mut bytes)?;
//! assert_eq!(
//!     String::from_utf8_lossy(&bytes),
//!     r#"{"amount":{"_type_":"decimal_str","_data_":"1.50"},"note":"salary","tags":[true]}"#
//! );
//! assert_eq!(transcoder.decode(PhantomData::<Credited>, &bytes)?, credited);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Transcodings of one's own
//! The counterparts of these Python transcodings, of which the first uses `uuid_hex` and `date_iso`, and the
//! second uses the first:
//! ```python
//! class SimpleCustomValueAsDict(Transcoding):
//!     type = SimpleCustomValue
//!     name = "simple_custom_value"
//!     def encode(self, obj): return {"id": obj.id, "date": obj.date}
//!     def decode(self, data): return SimpleCustomValue(**data)
//!
//! class ComplexCustomValueAsDict(Transcoding):
//!     type = ComplexCustomValue
//!     name = "complex_custom_value"
//!     def encode(self, obj): return obj.value
//!     def decode(self, data): return ComplexCustomValue(data)
//! ```
//! are:
//! ```
//! use es_core::{PersistenceError, Transcoder, Transcoding, serde::{Deserialize, Serialize}};
//! use es_transcode::{JsonTranscoder, Registered, serde_with::serde_as, uuid::Uuid};
//! use std::marker::PhantomData;
//! use time::{Date, macros::date};
//!
//! /// Its fields are its representation.
//! #[serde_as(crate = "es_transcode::serde_with")]
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! # #[serde(crate = "es_core::serde")]
//! struct SimpleCustomValue {
//!     #[serde_as(as = "Registered")]
//!     id: Uuid,
//!     #[serde_as(as = "Registered")]
//!     date: Date,
//! }
//!
//! #[derive(Debug)]
//! struct SimpleCustomValueAsDict;
//!
//! impl Transcoding for SimpleCustomValueAsDict {
//!     type Value = SimpleCustomValue;
//!     type Encoded<'a> = &'a SimpleCustomValue;
//!     type Decoded = SimpleCustomValue;
//!
//!     fn name(&self) -> &str {
//!         "simple_custom_value"
//!     }
//!     fn encode<'a>(
//!         &'a self,
//!         value: &'a SimpleCustomValue,
//!     ) -> Result<&'a SimpleCustomValue, PersistenceError> {
//!         Ok(value)
//!     }
//!     fn decode(&self, value: SimpleCustomValue) -> Result<SimpleCustomValue, PersistenceError> {
//!         Ok(value)
//!     }
//! }
//!
//! /// Its one field is its representation.
//! #[serde_as(crate = "es_transcode::serde_with")]
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! # #[serde(crate = "es_core::serde")]
//! #[serde(transparent)]
//! struct ComplexCustomValue(#[serde_as(as = "Registered")] SimpleCustomValue);
//!
//! #[derive(Debug)]
//! struct ComplexCustomValueAsDict;
//!
//! impl Transcoding for ComplexCustomValueAsDict {
//!     type Value = ComplexCustomValue;
//!     type Encoded<'a> = &'a ComplexCustomValue;
//!     type Decoded = ComplexCustomValue;
//!
//!     fn name(&self) -> &str {
//!         "complex_custom_value"
//!     }
//!     fn encode<'a>(
//!         &'a self,
//!         value: &'a ComplexCustomValue,
//!     ) -> Result<&'a ComplexCustomValue, PersistenceError> {
//!         Ok(value)
//!     }
//!     fn decode(&self, value: ComplexCustomValue) -> Result<ComplexCustomValue, PersistenceError> {
//!         Ok(value)
//!     }
//! }
//!
//! /// The event that has such a value.
//! #[serde_as(crate = "es_transcode::serde_with")]
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! # #[serde(crate = "es_core::serde")]
//! struct Verified {
//!     #[serde_as(as = "Registered")]
//!     proof: ComplexCustomValue,
//! }
//!
//! let mut transcoder = JsonTranscoder::new();
//! transcoder.register(SimpleCustomValueAsDict);
//! transcoder.register(ComplexCustomValueAsDict);
//!
//! let simple = SimpleCustomValue { id: Uuid::from_u128(5), date: date!(2000 - 02 - 20) };
//! let verified = Verified { proof: ComplexCustomValue(simple) };
//! let mut bytes = Vec::new();
//! transcoder.encode(&verified, &mut bytes)?;
//! assert_eq!(
//!     String::from_utf8_lossy(&bytes),
//!     concat!(
//!         r#"{"proof":{"_type_":"complex_custom_value","_data_":{"_type_":"simple_custom_value","_data_":{"#,
//!         r#""id":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000005"},"#,
//!         r#""date":{"_type_":"date_iso","_data_":"2000-02-20"}}}}}"#
//!     )
//! );
//! assert_eq!(transcoder.decode(PhantomData::<Verified>, &bytes)?, verified);
//! # Ok::<(), PersistenceError>(())
//! ```
//!
//! # Types of Python and of Rust
//! | Python | stored as | Rust |
//! |---|---|---|
//! | `None`, `bool`, `str` | JSON | [`Option`], [`bool`], [`String`] |
//! | `int` | its digits | integers up to [`i128`] and [`u128`]; [`Value::Int`] to 308 digits |
//! | `float` | its `repr`: `0.1`, `1e+16`, `5e-324` | [`f64`] |
//! | `list`, `tuple` | array | [`Vec`], tuples, arrays |
//! | `dict` | object | structs, maps |
//! | `UUID` | `uuid_hex`: 32 hex digits | [`uuid::Uuid`] |
//! | `datetime` with `tzinfo` | `datetime_iso` | [`time::OffsetDateTime`] |
//! | `datetime` without | `datetime_iso` | [`time::PrimitiveDateTime`] |
//! | `date` | `date_iso`: its `isoformat()` | [`time::Date`] |
//! | `time` without `tzinfo` | `time_iso`: its `isoformat()` | [`time::Time`] |
//! | `Decimal` | `decimal_str`: its `str` | [`bigdecimal::BigDecimal`] |
//! | a type with a transcoding | its name | a type with a [`Transcoding`](es_core::Transcoding) |
//! | anything of these | | [`Value`] |
//!
//! The features `chrono`, `jiff` and `rust-decimal` add the types of these libraries, which are stored alike;
//! [`AsText`] lists them. A field of any such type is marked in the same way, and registered by
//! [`JsonTranscoder::new`].
//!
//! The Python library has transcodings for UUIDs, date-times and decimals. One for dates or times of day is
//! registered by the program, with the same names:
//! ```python
//! class DateAsISO(Transcoding):
//!     type = date
//!     name = "date_iso"
//!     def encode(self, obj): return obj.isoformat()
//!     def decode(self, data): return date.fromisoformat(data)
//!
//! class TimeAsISO(Transcoding):
//!     type = time
//!     name = "time_iso"
//!     def encode(self, obj): return obj.isoformat()
//!     def decode(self, data): return time.fromisoformat(data)
//!
//! class Bank(Application):
//!     def register_transcodings(self, transcoder):
//!         super().register_transcodings(transcoder)
//!         transcoder.register(DateAsISO())
//!         transcoder.register(TimeAsISO())
//! ```
//!
//! # Where plain serde is enough
//! A field that is not marked is written by serde, in the form of its type: a `chrono::DateTime` as text of
//! RFC 3339, a `rust_decimal::Decimal` as text. That is shorter than the tagged object, and enough if only
//! Rust reads the events. Mark the field if a Python program reads or writes the events too, or if stored
//! events have the tagged object already. Some types have different forms by their features
//! (`serde-human-readable` of `time`, `serde-float` of `rust_decimal`); a transcoding always has one.
//!
//! A marked field is written and read in the form of its type, too, where no transcoder is at work, as in an
//! HTTP API: see [`Registered`].
//!
//! # Differences
//! The bytes are those that version 9.5 of the Python library writes for the same values in the same
//! order. The style of version 9.1, with blanks and escapes, is read as well. The differences:
//!
//! | Python value | result | reason why no value is lost |
//! |---|---|---|
//! | `Decimal("-0")` | `0` | equal in Python too; [`BigDecimal`](bigdecimal::BigDecimal) has one zero |
//! | a name of a time zone | the offset | Python stores only the offset |
//! | an offset with microseconds | an error | [`time::UtcOffset`] has whole seconds |
//! | a `float` beyond [`f64`], such as `1e400` | an error | Python reads infinity |
//! | `NaN`, `Infinity` | an error | JSON does not have them |
//! | lone surrogates | an error | Rust's text does not have them |
//! | `Decimal("NaN")` | an error | `BigDecimal` does not have it |
//! | an `int` of more than 308 digits | an error | the limit bounds the time of a read |
//! | a `Decimal` of more than 100,000 digits | an error | the limit bounds the time of a read |
//! | values nested deeper than 127 levels | an error | the limit prevents a stack overflow |
//!
//! | Rust value | result | reason why no value is lost |
//! |---|---|---|
//! | [`f32`] | the [`f64`] of the same value | all readers get it: `0.10000000149011612` for `0.1_f32` |
//! | NaN and the infinities | an error | serde_json would write `null` |
//! | nanoseconds beyond whole microseconds | an error | as in Python; `DomainEvent::new` has microseconds |
//! | years outside of 1 to 9999, offsets of a day or more | an error | Python's type has this range |
//! | a [`Value::Map`] of exactly `_type_` and `_data_` | an error | it would be read as a registered value |
//!
//! Fields of serde's own types follow serde's rules: an `f64` reads the integer 9007199254740993 as the
//! nearest float, a `BTreeMap<String, String>` reads a stored UUID as a map of two keys, and
//! `serde_json::Value` converts 2⁷⁰ to a float. [`Value`] keeps all of these.
//!
//! # Errors
//! A type or a name that is not registered is an error of kind
//! [`Programming`](es_core::ErrorKind::Programming), with the message of the Python library, except that `X`
//! in `Object of type X is not serializable` is the full path that [`std::any::type_name`] gives. An
//! error of a transcoding is passed on as it is. Everything else is
//! [`Data`](es_core::ErrorKind::Data), with serde_json's error and its position as the source.

mod as_text;
mod datetime;
mod decimal;
mod failure;
mod finite_floats;
mod iso;
mod json_error;
mod json_text;
mod python_style;
mod raw_json;
mod registered;
mod registry;
mod scope;
mod transcoder;
mod types;
mod uuid_hex;
mod value;

pub use as_text::AsText;
/// The library whose decimals have a standard transcoding.
pub use bigdecimal;
/// The library whose dates and times have transcodings, with the feature `chrono`.
#[cfg(feature = "chrono")]
pub use chrono;
pub use datetime::{DatetimeAsIso, NaiveDatetimeAsIso};
pub use decimal::DecimalAsStr;
/// The library whose dates and times have transcodings, with the feature `jiff`.
#[cfg(feature = "jiff")]
pub use jiff;
pub use raw_json::{RawJson, decode_part, encode_part};
pub use registered::{Registered, RegisteredAs, RegisteredOnly};
/// The library whose decimals have a transcoding, with the feature `rust-decimal`.
#[cfg(feature = "rust-decimal")]
pub use rust_decimal;
pub use scope::fail_later;
/// The library that puts [`Registered`] on fields.
pub use serde_with;
/// The library whose dates with times have standard transcodings.
pub use time;
pub use transcoder::JsonTranscoder;
/// The library whose UUIDs have a standard transcoding.
pub use uuid;
pub use uuid_hex::UuidAsHex;
pub use value::{Integer, Value};

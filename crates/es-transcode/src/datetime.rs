//! `datetime_iso`: dates with times of day, with an offset from UTC or without.

use es_core::{PersistenceError, Transcoding};
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::iso;

/// Writes an [`OffsetDateTime`] as Python's `datetime.isoformat()` does, under the name
/// `datetime_iso`: `2021-12-31T23:59:59.123456+00:00`.
///
/// No fraction when it is zero, else 6 digits; offsets may have seconds. Refused, as Python's type
/// does not hold them, are years outside of 1 to 9999, offsets of a day or more, and nanoseconds that
/// are not whole microseconds: cutting them off would store another time than the caller's.
///
/// Read are an ISO date, then nothing, or `T` or a space and a time of `HH:MM`, `HH:MM:SS` or
/// `HH:MM:SS` with 1 to 6 digits after `.` or `,`; then `Z`, or an offset of `±HH:MM` or `±HH:MM:SS`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatetimeAsIso;

/// As [`DatetimeAsIso`], for date-times without an offset, which Python calls naive.
///
/// Both share one name: the expected type decides, and rejects the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct NaiveDatetimeAsIso;

impl Transcoding for DatetimeAsIso {
    type Value = OffsetDateTime;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        iso::DATETIME
    }

    fn encode(&self, value: &OffsetDateTime) -> Result<String, PersistenceError> {
        iso::write_aware(*value)
    }

    fn decode(&self, text: Box<str>) -> Result<OffsetDateTime, PersistenceError> {
        iso::read_aware(&text)
    }
}

impl Transcoding for NaiveDatetimeAsIso {
    type Value = PrimitiveDateTime;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        iso::DATETIME
    }

    fn encode(&self, value: &PrimitiveDateTime) -> Result<String, PersistenceError> {
        iso::write_naive(*value)
    }

    fn decode(&self, text: Box<str>) -> Result<PrimitiveDateTime, PersistenceError> {
        iso::read_naive(&text)
    }
}

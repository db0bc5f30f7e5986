//! The types of `chrono`, converted to those of `time` and back.

use chrono::{
    DateTime, Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Timelike, Utc,
};
use es_core::PersistenceError;
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

use crate::{
    as_text::{AsText, TextForm},
    iso,
    registry::Registry,
};

pub(super) fn register(registry: &mut Registry) {
    registry.register(AsText::<NaiveDate>::new());
    registry.register(AsText::<NaiveTime>::new());
    registry.register(AsText::<NaiveDateTime>::new());
    registry.register(AsText::<DateTime<FixedOffset>>::new());
    registry.register(AsText::<DateTime<Utc>>::new());
}

impl TextForm for NaiveDate {
    const NAME: &str = iso::DATE;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_date(to_date(*self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_date(iso::read_date(text)?)
    }
}

impl TextForm for NaiveTime {
    const NAME: &str = iso::TIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_time(to_time(*self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_time(iso::read_time(text)?)
    }
}

impl TextForm for NaiveDateTime {
    const NAME: &str = iso::DATETIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_naive(to_naive(*self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_naive(iso::read_naive(text)?)
    }
}

impl TextForm for DateTime<FixedOffset> {
    const NAME: &str = iso::DATETIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_aware(to_aware(self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        let value = iso::read_aware(text)?;
        let offset = FixedOffset::east_opt(value.offset().whole_seconds()).ok_or_else(out_of_range)?;
        from_aware(value, offset)
    }
}

impl TextForm for DateTime<Utc> {
    const NAME: &str = iso::DATETIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_aware(to_aware(self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_aware(iso::in_utc(iso::read_aware(text)?)?, Utc)
    }
}

fn to_date(date: NaiveDate) -> Result<Date, PersistenceError> {
    let ordinal = u16::try_from(date.ordinal()).map_err(|_| out_of_range())?;
    Date::from_ordinal_date(date.year(), ordinal).map_err(|_| iso::invalid_year(date.year()))
}

fn from_date(date: Date) -> Result<NaiveDate, PersistenceError> {
    NaiveDate::from_yo_opt(date.year(), date.ordinal().into()).ok_or_else(out_of_range)
}

/// A leap second has a nanosecond beyond the second 59.
fn to_time(time: NaiveTime) -> Result<Time, PersistenceError> {
    let part = |part: u32| u8::try_from(part).map_err(|_| out_of_range());
    let (hour, minute, second) = (part(time.hour())?, part(time.minute())?, part(time.second())?);
    Time::from_hms_nano(hour, minute, second, time.nanosecond())
        .map_err(|_| PersistenceError::data("the time is a leap second, which cannot be stored"))
}

fn from_time(time: Time) -> Result<NaiveTime, PersistenceError> {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond)
        .ok_or_else(out_of_range)
}

fn to_naive(value: NaiveDateTime) -> Result<PrimitiveDateTime, PersistenceError> {
    Ok(PrimitiveDateTime::new(to_date(value.date())?, to_time(value.time())?))
}

fn from_naive(value: PrimitiveDateTime) -> Result<NaiveDateTime, PersistenceError> {
    Ok(NaiveDateTime::new(from_date(value.date())?, from_time(value.time())?))
}

/// Not by `naive_local`, which panics at the limits of chrono's range.
fn to_aware<Z: TimeZone>(value: &DateTime<Z>) -> Result<OffsetDateTime, PersistenceError> {
    let offset = value.offset().fix();
    let local = value.naive_utc().checked_add_offset(offset).ok_or_else(out_of_range)?;
    let offset = UtcOffset::from_whole_seconds(offset.local_minus_utc()).map_err(|_| out_of_range())?;
    Ok(to_naive(local)?.assume_offset(offset))
}

fn from_aware<Z: TimeZone>(value: OffsetDateTime, zone: Z) -> Result<DateTime<Z>, PersistenceError> {
    let local = from_naive(PrimitiveDateTime::new(value.date(), value.time()))?;
    zone.from_local_datetime(&local).single().ok_or_else(out_of_range)
}

fn out_of_range() -> PersistenceError {
    PersistenceError::data("the date and time is out of range")
}

//! The types of `jiff`, converted to those of `time` and back.

use es_core::PersistenceError;
use jiff::{
    Timestamp,
    civil::{self, DateTime},
};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

use crate::{
    as_text::{AsText, TextForm},
    iso,
    registry::Registry,
};

pub(super) fn register(registry: &mut Registry) {
    registry.register(AsText::<civil::Date>::new());
    registry.register(AsText::<civil::Time>::new());
    registry.register(AsText::<DateTime>::new());
    registry.register(AsText::<Timestamp>::new());
}

impl TextForm for civil::Date {
    const NAME: &str = iso::DATE;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_date(to_date(*self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_date(iso::read_date(text)?)
    }
}

impl TextForm for civil::Time {
    const NAME: &str = iso::TIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_time(to_time(*self)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        from_time(iso::read_time(text)?)
    }
}

impl TextForm for DateTime {
    const NAME: &str = iso::DATETIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        iso::write_naive(PrimitiveDateTime::new(to_date(self.date())?, to_time(self.time())?))
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        let value = iso::read_naive(text)?;
        Ok(Self::from_parts(from_date(value.date())?, from_time(value.time())?))
    }
}

impl TextForm for Timestamp {
    const NAME: &str = iso::DATETIME;

    fn to_text(&self) -> Result<String, PersistenceError> {
        let value = OffsetDateTime::from_unix_timestamp_nanos(self.as_nanosecond());
        iso::write_aware(value.map_err(out_of_range)?)
    }

    fn from_text(text: &str) -> Result<Self, PersistenceError> {
        let value = iso::in_utc(iso::read_aware(text)?)?;
        Self::from_nanosecond(value.unix_timestamp_nanos()).map_err(out_of_range)
    }
}

fn to_date(date: civil::Date) -> Result<Date, PersistenceError> {
    let day_of_year = u16::try_from(date.day_of_year()).map_err(out_of_range)?;
    Date::from_ordinal_date(date.year().into(), day_of_year).map_err(out_of_range)
}

fn from_date(date: Date) -> Result<civil::Date, PersistenceError> {
    let (year, month, day) = date.to_calendar_date();
    let year = i16::try_from(year).map_err(out_of_range)?;
    civil::Date::new(year, number(Month::into(month))?, number(day)?).map_err(out_of_range)
}

fn to_time(time: civil::Time) -> Result<Time, PersistenceError> {
    let unsigned = |part| u8::try_from(part).map_err(out_of_range);
    let nanosecond = u32::try_from(time.subsec_nanosecond()).map_err(out_of_range)?;
    Time::from_hms_nano(
        unsigned(time.hour())?,
        unsigned(time.minute())?,
        unsigned(time.second())?,
        nanosecond,
    )
    .map_err(out_of_range)
}

fn from_time(time: Time) -> Result<civil::Time, PersistenceError> {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    let nanosecond = i32::try_from(nanosecond).map_err(out_of_range)?;
    civil::Time::new(number(hour)?, number(minute)?, number(second)?, nanosecond).map_err(out_of_range)
}

fn number(part: u8) -> Result<i8, PersistenceError> {
    i8::try_from(part).map_err(out_of_range)
}

fn out_of_range(error: impl std::error::Error + Send + Sync + 'static) -> PersistenceError {
    PersistenceError::data("the date and time is out of range").with_source(error)
}

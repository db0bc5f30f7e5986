//! Dates, times of day and date-times in ISO format, as Python's `isoformat()` writes them.

use es_core::PersistenceError;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

/// The name of dates with times of day, with an offset or without.
pub(crate) const DATETIME: &str = "datetime_iso";

/// The name of dates.
pub(crate) const DATE: &str = "date_iso";

/// The name of times of day.
pub(crate) const TIME: &str = "time_iso";

pub(crate) fn write_aware(value: OffsetDateTime) -> Result<String, PersistenceError> {
    let mut text = String::with_capacity("0001-01-01T00:00:00.000000+00:00:00".len());
    push_datetime(&mut text, value.date(), value.time())?;
    push_offset(&mut text, value.offset())?;
    Ok(text)
}

pub(crate) fn read_aware(text: &str) -> Result<OffsetDateTime, PersistenceError> {
    match parse(text)? {
        (datetime, Some(offset)) => Ok(datetime.assume_offset(offset)),
        (_, None) => Err(PersistenceError::data("the date and time has no offset, and one is expected")),
    }
}

/// Returns the same instant in UTC.
#[cfg(any(feature = "chrono", feature = "jiff"))]
pub(crate) fn in_utc(value: OffsetDateTime) -> Result<OffsetDateTime, PersistenceError> {
    let in_utc = value.checked_to_offset(UtcOffset::UTC).filter(|in_utc| (1..=9999).contains(&in_utc.year()));
    in_utc.ok_or_else(|| PersistenceError::data("the date and time is out of range in UTC"))
}

pub(crate) fn write_naive(value: PrimitiveDateTime) -> Result<String, PersistenceError> {
    let mut text = String::with_capacity("0001-01-01T00:00:00.000000".len());
    push_datetime(&mut text, value.date(), value.time())?;
    Ok(text)
}

pub(crate) fn read_naive(text: &str) -> Result<PrimitiveDateTime, PersistenceError> {
    match parse(text)? {
        (datetime, None) => Ok(datetime),
        (_, Some(_)) => Err(PersistenceError::data("the date and time has an offset, and none is expected")),
    }
}

pub(crate) fn write_date(value: Date) -> Result<String, PersistenceError> {
    let mut text = String::with_capacity("0001-01-01".len());
    push_date(&mut text, value)?;
    Ok(text)
}

pub(crate) fn read_date(text: &str) -> Result<Date, PersistenceError> {
    match date(text.as_bytes()) {
        Some((date, [])) => Ok(date),
        _ => Err(PersistenceError::data("the text is not a date in ISO format")),
    }
}

pub(crate) fn write_time(value: Time) -> Result<String, PersistenceError> {
    let mut text = String::with_capacity("00:00:00.000000".len());
    push_time(&mut text, value)?;
    Ok(text)
}

pub(crate) fn read_time(text: &str) -> Result<Time, PersistenceError> {
    match time(text.as_bytes()) {
        Some((time, [])) => Ok(time),
        _ => Err(PersistenceError::data("the text is not a time of day in ISO format without an offset")),
    }
}

fn push_datetime(text: &mut String, date: Date, time: Time) -> Result<(), PersistenceError> {
    push_date(text, date)?;
    text.push('T');
    push_time(text, time)
}

fn push_date(text: &mut String, date: Date) -> Result<(), PersistenceError> {
    let year = u32::try_from(date.year()).unwrap_or(0);
    if !(1..=9999).contains(&year) {
        return Err(invalid_year(date.year()));
    }
    push_digits(text, 4, year);
    text.push('-');
    push_digits(text, 2, u8::from(date.month()).into());
    text.push('-');
    push_digits(text, 2, date.day().into());
    Ok(())
}

/// The error for a year that Python's types do not hold.
pub(crate) fn invalid_year(year: i32) -> PersistenceError {
    PersistenceError::data(format!("year {year} is not within 1 to 9999"))
}

fn push_time(text: &mut String, time: Time) -> Result<(), PersistenceError> {
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    if nanosecond % 1_000 != 0 {
        return Err(PersistenceError::data(format!(
            "the time has {nanosecond} nanoseconds, and only whole microseconds can be stored"
        )));
    }
    push_digits(text, 2, hour.into());
    text.push(':');
    push_digits(text, 2, minute.into());
    text.push(':');
    push_digits(text, 2, second.into());
    if nanosecond != 0 {
        text.push('.');
        push_digits(text, 6, nanosecond / 1_000);
    }
    Ok(())
}

fn push_offset(text: &mut String, offset: UtcOffset) -> Result<(), PersistenceError> {
    let (hours, minutes, seconds) = offset.as_hms();
    if hours.unsigned_abs() >= 24 {
        return Err(PersistenceError::data(format!("the offset {offset} is not within a day")));
    }
    text.push(if offset.is_negative() { '-' } else { '+' });
    push_digits(text, 2, hours.unsigned_abs().into());
    text.push(':');
    push_digits(text, 2, minutes.unsigned_abs().into());
    if seconds != 0 {
        text.push(':');
        push_digits(text, 2, seconds.unsigned_abs().into());
    }
    Ok(())
}

/// Formatting by the standard library takes several times as long.
fn push_digits(text: &mut String, count: u32, number: u32) {
    for place in (0..count).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

fn parse(text: &str) -> Result<(PrimitiveDateTime, Option<UtcOffset>), PersistenceError> {
    datetime(text.as_bytes())
        .ok_or_else(|| PersistenceError::data("the text is not a date and time in ISO format"))
}

fn datetime(text: &[u8]) -> Option<(PrimitiveDateTime, Option<UtcOffset>)> {
    let (date, rest) = date(text)?;
    let rest = match rest {
        [] => return Some((PrimitiveDateTime::new(date, Time::MIDNIGHT), None)),
        [b'T' | b' ', rest @ ..] => rest,
        _ => return None,
    };
    let (time, rest) = time(rest)?;
    let offset = if rest.is_empty() { None } else { Some(offset(rest)?) };
    Some((PrimitiveDateTime::new(date, time), offset))
}

/// The date at the beginning, and the rest of the text.
fn date(text: &[u8]) -> Option<(Date, &[u8])> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = text else { return None };
    let year = u16::from(number(*y1, *y2)?) * 100 + u16::from(number(*y3, *y4)?);
    let month = Month::try_from(number(*m1, *m2)?).ok()?;
    if year == 0 {
        return None;
    }
    let date = Date::from_calendar_date(year.into(), month, number(*d1, *d2)?).ok()?;
    Some((date, rest))
}

/// The time of day at the beginning, and the rest of the text.
fn time(text: &[u8]) -> Option<(Time, &[u8])> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return None };
    let (hour, minute) = (number(*h1, *h2)?, number(*m1, *m2)?);
    let [b':', rest @ ..] = rest else { return Some((Time::from_hms(hour, minute, 0).ok()?, rest)) };
    let [s1, s2, rest @ ..] = rest else { return None };
    let second = number(*s1, *s2)?;
    let (microsecond, rest) = match rest {
        [b'.' | b',', rest @ ..] => fraction(rest)?,
        _ => (0, rest),
    };
    Some((Time::from_hms_micro(hour, minute, second, microsecond).ok()?, rest))
}

/// Microseconds of 1 to 6 digits at the beginning, and the rest of the text.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let mut microseconds = 0;
    let mut weight = 100_000;
    let mut rest = text;
    while let [byte @ b'0'..=b'9', following @ ..] = rest {
        if weight == 0 {
            return None;
        }
        microseconds += u32::from(byte - b'0') * weight;
        weight /= 10;
        rest = following;
    }
    (rest.len() < text.len()).then_some((microseconds, rest))
}

/// An offset at the end of the text.
fn offset(text: &[u8]) -> Option<UtcOffset> {
    let (sign, text) = match text {
        b"Z" | b"+00:00" => return Some(UtcOffset::UTC),
        [b'+', text @ ..] => (1, text),
        [b'-', text @ ..] => (-1, text),
        _ => return None,
    };
    let [h1, h2, b':', m1, m2, rest @ ..] = text else { return None };
    let second = match rest {
        [] => 0,
        [b':', s1, s2] => number(*s1, *s2)?,
        _ => return None,
    };
    let (hour, minute) = (number(*h1, *h2)?, number(*m1, *m2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let total = i32::from(hour) * 3_600 + i32::from(minute) * 60 + i32::from(second);
    UtcOffset::from_whole_seconds(sign * total).ok()
}

/// A number of two digits.
fn number(tens: u8, ones: u8) -> Option<u8> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| tens * 10 + ones)
}

//! `datetime_iso`: dates with times of day, with an offset from UTC or without.

use es_core::{PersistenceError, Transcoding};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

const NAME: &str = "datetime_iso";

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
/// Both share one name: the type that is expected at a place decides, and the other is refused there.
#[derive(Clone, Copy, Debug, Default)]
pub struct NaiveDatetimeAsIso;

impl Transcoding for DatetimeAsIso {
    type Value = OffsetDateTime;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        NAME
    }

    fn encode(&self, value: &OffsetDateTime) -> Result<String, PersistenceError> {
        let mut text = String::with_capacity("0001-01-01T00:00:00.000000+00:00:00".len());
        push_datetime(&mut text, value.date(), value.time())?;
        push_offset(&mut text, value.offset())?;
        Ok(text)
    }

    fn decode(&self, text: Box<str>) -> Result<OffsetDateTime, PersistenceError> {
        match parse(&text)? {
            (datetime, Some(offset)) => Ok(datetime.assume_offset(offset)),
            (_, None) => Err(PersistenceError::data("the date and time has no offset, and one is expected")),
        }
    }
}

impl Transcoding for NaiveDatetimeAsIso {
    type Value = PrimitiveDateTime;
    type Encoded<'a> = String;
    type Decoded = Box<str>;

    fn name(&self) -> &str {
        NAME
    }

    fn encode(&self, value: &PrimitiveDateTime) -> Result<String, PersistenceError> {
        let mut text = String::with_capacity("0001-01-01T00:00:00.000000".len());
        push_datetime(&mut text, value.date(), value.time())?;
        Ok(text)
    }

    fn decode(&self, text: Box<str>) -> Result<PrimitiveDateTime, PersistenceError> {
        match parse(&text)? {
            (datetime, None) => Ok(datetime),
            (_, Some(_)) => {
                Err(PersistenceError::data("the date and time has an offset, and none is expected"))
            }
        }
    }
}

fn push_datetime(text: &mut String, date: Date, time: Time) -> Result<(), PersistenceError> {
    let year = u32::try_from(date.year()).unwrap_or(0);
    if !(1..=9999).contains(&year) {
        return Err(PersistenceError::data(format!("year {} is not within 1 to 9999", date.year())));
    }
    let (hour, minute, second, nanosecond) = time.as_hms_nano();
    if nanosecond % 1_000 != 0 {
        return Err(PersistenceError::data(format!(
            "the date and time has {nanosecond} nanoseconds, and only whole microseconds can be stored"
        )));
    }
    push_digits(text, 4, year);
    text.push('-');
    push_digits(text, 2, u8::from(date.month()).into());
    text.push('-');
    push_digits(text, 2, date.day().into());
    text.push('T');
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

/// The formatting machinery of the standard library takes several times as long.
fn push_digits(text: &mut String, count: u32, number: u32) {
    for place in (0..count).rev() {
        let digit = number / 10_u32.pow(place) % 10;
        text.push(char::from_digit(digit, 10).unwrap_or('0'));
    }
}

fn parse(text: &str) -> Result<(PrimitiveDateTime, Option<UtcOffset>), PersistenceError> {
    Cursor(text.as_bytes())
        .datetime()
        .ok_or_else(|| PersistenceError::data("the text is not a date and time in ISO format"))
}

/// The rest of the text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn datetime(mut self) -> Option<(PrimitiveDateTime, Option<UtcOffset>)> {
        let date = self.date()?;
        if self.0.is_empty() {
            return Some((PrimitiveDateTime::new(date, Time::MIDNIGHT), None));
        }
        if !self.eat(b'T') && !self.eat(b' ') {
            return None;
        }
        let time = self.time()?;
        let offset = if self.0.is_empty() { None } else { Some(self.offset()?) };
        self.0.is_empty().then_some((PrimitiveDateTime::new(date, time), offset))
    }

    fn date(&mut self) -> Option<Date> {
        let year = self.digits(4)?;
        self.require(b'-')?;
        let month = u8::try_from(self.digits(2)?).ok()?;
        self.require(b'-')?;
        let day = u8::try_from(self.digits(2)?).ok()?;
        if year == 0 {
            return None;
        }
        Date::from_calendar_date(i32::try_from(year).ok()?, month.try_into().ok()?, day).ok()
    }

    fn time(&mut self) -> Option<Time> {
        let hour = u8::try_from(self.digits(2)?).ok()?;
        self.require(b':')?;
        let minute = u8::try_from(self.digits(2)?).ok()?;
        if !self.eat(b':') {
            return Time::from_hms(hour, minute, 0).ok();
        }
        let second = u8::try_from(self.digits(2)?).ok()?;
        let microsecond = if self.eat(b'.') || self.eat(b',') { self.fraction()? } else { 0 };
        Time::from_hms_micro(hour, minute, second, microsecond).ok()
    }

    fn fraction(&mut self) -> Option<u32> {
        let given = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let missing = 6_usize.checked_sub(given).filter(|missing| *missing < 6)?;
        Some(self.digits(given)? * 10_u32.pow(u32::try_from(missing).ok()?))
    }

    fn offset(&mut self) -> Option<UtcOffset> {
        if self.eat(b'Z') {
            return Some(UtcOffset::UTC);
        }
        let sign = if self.eat(b'-') {
            -1
        } else {
            self.require(b'+')?;
            1
        };
        let hours = self.digits(2).filter(|hours| *hours < 24)?;
        self.require(b':')?;
        let minutes = self.digits(2).filter(|minutes| *minutes < 60)?;
        let seconds = if self.eat(b':') { self.digits(2).filter(|seconds| *seconds < 60)? } else { 0 };
        let total = i32::try_from(hours * 3_600 + minutes * 60 + seconds).ok()?;
        UtcOffset::from_whole_seconds(sign * total).ok()
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut number = 0;
        for digit in digits {
            number = number * 10 + char::from(*digit).to_digit(10)?;
        }
        self.0 = rest;
        Some(number)
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn require(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }
}

//! Dates, times of day, date-times and decimals of several libraries: their stored texts, and invalid ones.
//!
//! A Python program that registers `date` and `time` by `isoformat()` writes the same: see `tools/interop`.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/values.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod values;

use std::fmt::Debug;

use alone::{Alone, decode, encode};
use es_core::ErrorKind;
use es_transcode::JsonTranscoder;
use proptest::prelude::*;
use time::{
    Date, Time,
    macros::{date, time},
};

const DATE: &str = "date_iso";
const TIME: &str = "time_iso";

fn tagged(name: &str, text: &str) -> String {
    format!(r#"{{"_type_":"{name}","_data_":"{text}"}}"#)
}

/// The value is stored as the text, and read from it.
#[track_caller]
fn assert_text<T: Clone + Debug + PartialEq + 'static>(name: &str, value: T, text: &str) {
    let transcoder = JsonTranscoder::new();
    let json = encode(&transcoder, &Alone(value.clone())).unwrap();
    assert_eq!(json, tagged(name, text));
    assert_eq!(decode::<Alone<T>>(&transcoder, json).unwrap(), Alone(value));
}

/// The text is read as the value, which is written in another way.
#[track_caller]
fn assert_read<T: Debug + PartialEq + 'static>(name: &str, text: &str, value: T) {
    assert_eq!(decode::<Alone<T>>(&JsonTranscoder::new(), tagged(name, text)).unwrap(), Alone(value));
}

#[track_caller]
fn assert_not_written<T: 'static>(value: T, reason: &str) {
    let error = encode(&JsonTranscoder::new(), &Alone(value)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains(reason), "{error}");
}

#[track_caller]
fn assert_not_read<T: Debug + 'static>(name: &str, texts: &[&str]) {
    for text in texts {
        let error = decode::<Alone<T>>(&JsonTranscoder::new(), tagged(name, text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{text:?}: {error}");
    }
}

const NO_DATES: &[&str] = &[
    "",
    "2021",
    "2021-12",
    "2021-12-32",
    "2021-02-29",
    "2021-13-01",
    "0000-01-01",
    "-001-01-01",
    "10000-01-01",
    "20211231",
    "2021-W01-1",
    "2021-12-31T00:00:00",
    "2021-12-31 ",
    " 2021-12-31",
    "2021-1-1",
    "２０２１-12-31",
];

const NO_TIMES: &[&str] = &[
    "",
    "24:00:00",
    "23:60:00",
    "23:59:60",
    "23:59:59.",
    "23:59:59.1234567",
    "23:59:59+00:00",
    "23:59:59Z",
    "23",
    "235959",
    "T23:59:59",
    "23:59:59 ",
    "-1:00:00",
    "23:59:5",
];

#[cfg(any(feature = "chrono", feature = "jiff"))]
const NO_DATETIMES: &[&str] = &[
    "",
    "2021-12-31T24:00:00+00:00",
    "2021-02-29T00:00:00+00:00",
    "2021-12-31T23:59:59.1234567+00:00",
    "2021-12-31T23:59:59+24:00",
    "2021-12-31T23:59:59+00:60",
    "2021-12-31T23:59:59+0000",
    "2021-12-31T23:59:60+00:00",
    "2021-12-31T23:59:59+00:00[Europe/Berlin]",
    "0000-12-31T00:00:00+00:00",
];

#[test]
fn dates_are_stored_as_python_writes_them() {
    assert_text(DATE, date!(2021 - 12 - 31), "2021-12-31");
    assert_text(DATE, date!(0001 - 01 - 01), "0001-01-01");
    assert_text(DATE, date!(9999 - 12 - 31), "9999-12-31");
    assert_text(DATE, date!(2024 - 02 - 29), "2024-02-29");
    assert_not_written(date!(0000 - 12 - 31), "year 0 is not within 1 to 9999");
    assert_not_written(date!(-0044 - 03 - 15), "year -44 is not within 1 to 9999");
    assert_not_read::<Date>(DATE, NO_DATES);
}

#[test]
fn times_of_day_are_stored_as_python_writes_them() {
    assert_text(TIME, Time::MIDNIGHT, "00:00:00");
    assert_text(TIME, time!(23:59:59.123456), "23:59:59.123456");
    assert_text(TIME, time!(01:02:03.00004), "01:02:03.000040");
    assert_read(TIME, "07:30", time!(07:30));
    assert_read(TIME, "07:30:00.5", time!(07:30:00.5));
    assert_not_written(time!(00:00:00.000000001), "only whole microseconds");
    assert_not_read::<Time>(TIME, NO_TIMES);
}

#[test]
fn a_date_is_no_time_of_day_and_no_date_time() {
    let error = decode::<Alone<Date>>(&JsonTranscoder::new(), tagged(TIME, "00:00:00")).unwrap_err();
    assert!(error.to_string().contains("'time_iso' stands where an object of type time::"), "{error}");
    assert_not_read::<Date>("datetime_iso", &["2021-12-31"]);
}

proptest! {
    #[test]
    fn dates_and_times_come_back(datetime in values::naive_datetime()) {
        let transcoder = JsonTranscoder::new();
        let both = (Alone(datetime.date()), Alone(datetime.time()));
        let json = encode(&transcoder, &both).unwrap();
        prop_assert_eq!(decode::<(Alone<Date>, Alone<Time>)>(&transcoder, json).unwrap(), both);
    }

    #[test]
    fn texts_that_resemble_dates_and_times_are_read_or_refused(text in "[0-9T:.+Z-]{0,30}") {
        let transcoder = JsonTranscoder::new();
        if let Ok(read) = decode::<Alone<Date>>(&transcoder, tagged(DATE, &text)) {
            prop_assert_eq!(encode(&transcoder, &read).unwrap(), tagged(DATE, &text));
        }
        let _ = decode::<Alone<Time>>(&transcoder, tagged(TIME, &text));
    }
}

#[cfg(feature = "chrono")]
mod chrono {
    use es_transcode::chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

    use super::*;

    const DATETIME: &str = "datetime_iso";

    fn date(year: i32, month: u32, day: u32) -> NaiveDate {
        NaiveDate::from_ymd_opt(year, month, day).unwrap()
    }

    fn at(text: &str) -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339(text).unwrap()
    }

    #[test]
    fn dates_and_times_are_stored_as_python_writes_them() {
        let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 40).unwrap();
        assert_text(DATE, date(2024, 2, 29), "2024-02-29");
        assert_text(TIME, time, "23:59:59.000040");
        assert_text(DATETIME, date(1, 1, 1).and_time(time), "0001-01-01T23:59:59.000040");
        assert_text(DATETIME, at("2021-12-31T23:59:59+02:30"), "2021-12-31T23:59:59+02:30");
        assert_text(DATETIME, at("2021-12-31T23:59:59.5-00:30"), "2021-12-31T23:59:59.500000-00:30");
        assert_text(DATETIME, at("2021-12-31T23:59:59Z").to_utc(), "2021-12-31T23:59:59+00:00");
        let seconds = FixedOffset::east_opt(-86_399).unwrap();
        let local = date(2021, 12, 31).and_time(time).and_local_timezone(seconds).unwrap();
        assert_text(DATETIME, local, "2021-12-31T23:59:59.000040-23:59:59");
    }

    #[test]
    fn any_offset_is_read_as_an_instant_in_utc() {
        assert_read(DATETIME, "2022-01-01T01:59:59+02:00", at("2021-12-31T23:59:59Z").to_utc());
        assert_not_read::<DateTime<Utc>>(
            DATETIME,
            &["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"],
        );
    }

    #[test]
    fn values_that_python_does_not_hold_are_not_written() {
        let midnight = NaiveTime::MIN;
        let leap_second = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
        let nanosecond = NaiveTime::from_hms_nano_opt(0, 0, 0, 1).unwrap();
        for year in [0, -1, 10_000, 200_000] {
            let reason = format!("year {year} is not within 1 to 9999");
            assert_not_written(date(year, 1, 1), &reason);
            assert_not_written(date(year, 1, 1).and_time(midnight), &reason);
            assert_not_written(date(year, 1, 1).and_time(midnight).and_utc(), &reason);
        }
        for (time, reason) in [(leap_second, "leap second"), (nanosecond, "only whole microseconds")] {
            assert_not_written(time, reason);
            assert_not_written(date(2016, 12, 31).and_time(time), reason);
            assert_not_written(date(2016, 12, 31).and_time(time).and_utc(), reason);
        }
        // The clock's face is beyond chrono's own range.
        let east = FixedOffset::east_opt(86_399).unwrap();
        assert_not_written(DateTime::<Utc>::MAX_UTC.with_timezone(&east), "out of range");
    }

    #[test]
    fn invalid_texts_are_not_read() {
        assert_not_read::<NaiveDate>(DATE, NO_DATES);
        assert_not_read::<NaiveTime>(TIME, NO_TIMES);
        assert_not_read::<NaiveDateTime>(DATETIME, NO_DATETIMES);
        assert_not_read::<DateTime<FixedOffset>>(DATETIME, NO_DATETIMES);
        assert_not_read::<DateTime<Utc>>(DATETIME, NO_DATETIMES);
        assert_not_read::<NaiveDateTime>(DATETIME, &["2021-12-31T00:00:00Z"]);
        assert_not_read::<DateTime<FixedOffset>>(DATETIME, &["2021-12-31T00:00:00"]);
        assert_not_read::<DateTime<Utc>>(DATETIME, &["2021-12-31T00:00:00"]);
    }

    proptest! {
        #[test]
        fn values_come_back(datetime in values::datetime()) {
            let transcoder = JsonTranscoder::new();
            let json = encode(&transcoder, &Alone(datetime)).unwrap();
            // Both libraries write the same.
            let read = decode::<Alone<DateTime<FixedOffset>>>(&transcoder, &json).unwrap();
            prop_assert_eq!(encode(&transcoder, &read).unwrap(), json.clone());
            prop_assert_eq!(read.0.timestamp(), datetime.unix_timestamp());
            if let Ok(read) = decode::<Alone<DateTime<Utc>>>(&transcoder, &json) {
                let json = encode(&transcoder, &read).unwrap();
                prop_assert_eq!(decode::<Alone<DateTime<Utc>>>(&transcoder, &json).unwrap(), read);
            }
            let naive = read.0.naive_utc() + TimeDelta::zero();
            if encode(&transcoder, &Alone(naive)).is_ok() {
                let json = encode(&transcoder, &(Alone(naive), Alone(naive.date()), Alone(naive.time()))).unwrap();
                let (Alone(whole), Alone(date), Alone(time)) = decode::<(
                    Alone<NaiveDateTime>, Alone<NaiveDate>, Alone<NaiveTime>,
                )>(&transcoder, &json).unwrap();
                prop_assert_eq!((whole, date, time), (naive, naive.date(), naive.time()));
            }
        }
    }
}

#[cfg(feature = "jiff")]
mod jiff {
    use es_transcode::jiff::{
        Timestamp,
        civil::{self, DateTime},
    };

    use super::*;

    const DATETIME: &str = "datetime_iso";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn dates_and_times_are_stored_as_python_writes_them() {
        assert_text(DATE, civil::date(2024, 2, 29), "2024-02-29");
        assert_text(TIME, civil::time(23, 59, 59, 40_000), "23:59:59.000040");
        assert_text(DATETIME, civil::date(1, 1, 1).at(23, 59, 59, 0), "0001-01-01T23:59:59");
        assert_text(DATETIME, at("2021-12-31T23:59:59.5Z"), "2021-12-31T23:59:59.500000+00:00");
    }

    #[test]
    fn any_offset_is_read_as_an_instant() {
        assert_read(DATETIME, "2022-01-01T01:59:59+02:00", at("2021-12-31T23:59:59Z"));
        assert_not_read::<Timestamp>(DATETIME, &["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"]);
    }

    #[test]
    fn values_that_python_does_not_hold_are_not_written() {
        for year in [0, -1, -9_999] {
            let reason = format!("year {year} is not within 1 to 9999");
            assert_not_written(civil::date(year, 1, 1), &reason);
            assert_not_written(civil::date(year, 1, 1).at(0, 0, 0, 0), &reason);
        }
        assert_not_written(Timestamp::MIN, "is not within 1 to 9999");
        assert_not_written(civil::time(0, 0, 0, 1), "only whole microseconds");
        assert_not_written(at("2021-12-31T23:59:59.000000001Z"), "only whole microseconds");
    }

    #[test]
    fn invalid_texts_are_not_read() {
        assert_not_read::<civil::Date>(DATE, NO_DATES);
        assert_not_read::<civil::Time>(TIME, NO_TIMES);
        assert_not_read::<DateTime>(DATETIME, NO_DATETIMES);
        assert_not_read::<Timestamp>(DATETIME, NO_DATETIMES);
        assert_not_read::<DateTime>(DATETIME, &["2021-12-31T00:00:00Z"]);
        assert_not_read::<Timestamp>(DATETIME, &["2021-12-31T00:00:00"]);
    }

    proptest! {
        #[test]
        fn values_come_back(datetime in values::naive_datetime()) {
            let transcoder = JsonTranscoder::new();
            let json = encode(&transcoder, &Alone(datetime)).unwrap();
            let read = decode::<Alone<DateTime>>(&transcoder, &json).unwrap();
            prop_assert_eq!(encode(&transcoder, &read).unwrap(), json);
            let json = encode(&transcoder, &Alone(datetime.assume_utc())).unwrap();
            // The last day may be beyond the range of an instant.
            if let Ok(read) = decode::<Alone<Timestamp>>(&transcoder, &json) {
                prop_assert_eq!(encode(&transcoder, &read).unwrap(), json);
                prop_assert_eq!(read.0.as_nanosecond(), datetime.assume_utc().unix_timestamp_nanos());
            }
            let both = (Alone(read.0.date()), Alone(read.0.time()));
            let json = encode(&transcoder, &both).unwrap();
            prop_assert_eq!(decode::<(Alone<civil::Date>, Alone<civil::Time>)>(&transcoder, &json).unwrap(), both);
        }
    }
}

#[cfg(feature = "rust-decimal")]
mod rust_decimal {
    use es_transcode::{bigdecimal::BigDecimal, rust_decimal::Decimal};

    use super::*;

    const DECIMAL: &str = "decimal_str";

    fn decimal(mantissa: i128, scale: u32) -> Decimal {
        Decimal::try_from_i128_with_scale(mantissa, scale).unwrap()
    }

    /// `PartialEq` of decimals ignores trailing zeros.
    #[track_caller]
    fn assert_exact(text: &str, mantissa: i128, scale: u32) {
        let Alone(read) = decode::<Alone<Decimal>>(&JsonTranscoder::new(), tagged(DECIMAL, text)).unwrap();
        assert_eq!((read.mantissa(), read.scale()), (mantissa, scale), "{text}");
    }

    #[test]
    fn decimals_are_stored_as_python_writes_them() {
        assert_text(DECIMAL, decimal(12_345, 4), "1.2345");
        assert_text(DECIMAL, decimal(-150, 2), "-1.50");
        assert_text(DECIMAL, decimal(0, 3), "0.000");
        assert_text(DECIMAL, decimal(1, 10), "1E-10");
        assert_text(DECIMAL, decimal(-5, 28), "-5E-28");
        assert_text(DECIMAL, Decimal::MAX, "79228162514264337593543950335");
        assert_text(DECIMAL, Decimal::MIN, "-79228162514264337593543950335");
        assert_exact("-1.50", -150, 2);
    }

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        assert_exact("1E+3", 1_000, 0);
        assert_exact("-0", 0, 0);
        assert_exact("0E+999999", 0, 0);
        assert_exact("0E-999999", 0, 28);
        assert_exact(
            "79228162514264337593543950335.0000000000000000",
            79_228_162_514_264_337_593_543_950_335,
            0,
        );
        assert_exact(&format!("1.5{}", "0".repeat(40)), 15 * 10_i128.pow(27), 28);
        let digits = format!("1.{}", "1".repeat(100));
        assert_not_read::<Decimal>(
            DECIMAL,
            &[
                "79228162514264337593543950336",
                "-79228162514264337593543950336",
                "1E+29",
                "1E-29",
                "1E+999999999999",
                "1E-999999999999",
                &digits,
                "NaN",
                "Infinity",
                "-Infinity",
                "sNaN",
                "",
                "1.5.0",
                "0x10",
                "1,5",
            ],
        );
    }

    proptest! {
        #[test]
        fn decimals_come_back(mantissa in -(1_i128 << 96) + 1..1 << 96, scale in 0..=28_u32) {
            let transcoder = JsonTranscoder::new();
            let json = encode(&transcoder, &Alone(decimal(mantissa, scale))).unwrap();
            let Alone(read) = decode::<Alone<Decimal>>(&transcoder, &json).unwrap();
            prop_assert_eq!((read.mantissa(), read.scale()), (mantissa, scale));
            // The decimals of any size are written in the same way.
            let any_size = decode::<Alone<BigDecimal>>(&transcoder, &json).unwrap();
            prop_assert_eq!(encode(&transcoder, &any_size).unwrap(), json);
        }

        #[test]
        fn decimals_of_any_size_are_read_exactly_or_not_at_all(value in values::decimal()) {
            let transcoder = JsonTranscoder::new();
            let json = encode(&transcoder, &Alone(value.clone())).unwrap();
            if let Ok(Alone(read)) = decode::<Alone<Decimal>>(&transcoder, json) {
                prop_assert_eq!(BigDecimal::new(read.mantissa().into(), read.scale().into()), value);
            }
        }
    }
}

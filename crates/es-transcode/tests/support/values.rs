//! Random values of all stored types.

use es_core::Transcoding;
use es_transcode::{
    AsText, Value,
    bigdecimal::{BigDecimal, num_bigint::BigInt},
    uuid::Uuid,
};
use proptest::{collection::vec, prelude::*};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

pub(crate) fn naive_datetime() -> impl Strategy<Value = PrimitiveDateTime> {
    let first = Date::from_calendar_date(1, time::Month::January, 1).unwrap().to_julian_day();
    let last = Date::from_calendar_date(9999, time::Month::December, 31).unwrap().to_julian_day();
    let microsecond = prop_oneof![Just(0), 0..1_000_000_u32];
    (first..=last, 0..24_u8, 0..60_u8, 0..60_u8, microsecond).prop_map(
        |(day, hour, minute, second, microsecond)| {
            let time = Time::from_hms_micro(hour, minute, second, microsecond).unwrap();
            PrimitiveDateTime::new(Date::from_julian_day(day).unwrap(), time)
        },
    )
}

pub(crate) fn datetime() -> impl Strategy<Value = OffsetDateTime> {
    let offset = prop_oneof![Just(0), -1439..1440_i32, -86_399..86_400_i32];
    (naive_datetime(), offset)
        .prop_map(|(naive, offset)| naive.assume_offset(UtcOffset::from_whole_seconds(offset).unwrap()))
}

pub(crate) fn decimal() -> impl Strategy<Value = BigDecimal> {
    const LEAST: i64 = -999_999_999_999_999_000;
    const GREATEST: i64 = 1_999_999_999_999_999_997;
    let scale = prop_oneof![-40..40_i64, LEAST..=GREATEST];
    (vec(any::<u8>(), 0..40), scale)
        .prop_map(|(bytes, scale)| BigDecimal::new(BigInt::from_signed_bytes_le(&bytes), scale))
}

pub(crate) fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// Text of any characters, control characters and those beyond 16 bits included.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), vec(any::<char>(), 0..12).prop_map(String::from_iter)]
}

/// A value that is text under the name of a transcoding.
fn as_text<T>(value: &T) -> Value
where
    AsText<T>: for<'a> Transcoding<Value = T, Encoded<'a> = String>,
{
    let (name, data) = (AsText::<T>::new().name().to_owned(), AsText::<T>::new().encode(value).unwrap());
    Value::Custom { name, data: Box::new(data.into()) }
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i128>().prop_map(|integer| Value::Int(integer.into())),
        "-?[1-9][0-9]{0,300}".prop_map(|digits| Value::Int(digits.parse().unwrap())),
        any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
        uuid().prop_map(Value::from),
        datetime().prop_map(Value::from),
        naive_datetime().prop_map(Value::from),
        decimal().prop_map(Value::from),
        naive_datetime().prop_map(|datetime| as_text(&datetime.date())),
        naive_datetime().prop_map(|datetime| as_text(&datetime.time())),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let key = prop_oneof![text(), Just("_type_".to_owned()), Just("_data_".to_owned())];
        let map = vec((key, inner.clone()), 0..6).prop_filter("not tagged", |entries| match &entries[..] {
            [(first, _), (second, _)] => {
                first == second || !first.starts_with('_') || !second.starts_with('_')
            }
            _ => true,
        });
        prop_oneof![vec(inner, 0..6).prop_map(Value::List), map.prop_map(Value::Map)]
    })
}

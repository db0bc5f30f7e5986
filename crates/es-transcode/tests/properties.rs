//! What is written is read as the same value, and no bytes make a reader panic.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;

use alone::{Alone, decode, encode};
use es_transcode::{
    JsonTranscoder, Value,
    bigdecimal::{BigDecimal, num_bigint::BigInt},
    uuid::Uuid,
};
use proptest::{collection::vec, prelude::*};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

fn naive_datetime() -> impl Strategy<Value = PrimitiveDateTime> {
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

fn datetime() -> impl Strategy<Value = OffsetDateTime> {
    let offset = prop_oneof![Just(0), -1439..1440_i32, -86_399..86_400_i32];
    (naive_datetime(), offset)
        .prop_map(|(naive, offset)| naive.assume_offset(UtcOffset::from_whole_seconds(offset).unwrap()))
}

fn decimal() -> impl Strategy<Value = BigDecimal> {
    const LARGEST: i64 = 999_999_999_999_999_000;
    let scale = prop_oneof![-40..40_i64, -LARGEST..LARGEST];
    (vec(any::<u8>(), 0..40), scale)
        .prop_map(|(bytes, scale)| BigDecimal::new(BigInt::from_signed_bytes_le(&bytes), scale))
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i128>().prop_map(|integer| Value::Int(integer.into())),
        "-?[1-9][0-9]{0,300}".prop_map(|digits| Value::Int(digits.parse().unwrap())),
        any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        uuid().prop_map(Value::from),
        datetime().prop_map(Value::from),
        naive_datetime().prop_map(Value::from),
        decimal().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let key = prop_oneof![any::<String>(), Just("_type_".to_owned()), Just("_data_".to_owned())];
        let map = vec((key, inner.clone()), 0..6).prop_filter("not tagged", |entries| match &entries[..] {
            [(first, _), (second, _)] => {
                first == second || !first.starts_with('_') || !second.starts_with('_')
            }
            _ => true,
        });
        prop_oneof![vec(inner, 0..6).prop_map(Value::List), map.prop_map(Value::Map)]
    })
}

/// Bytes that look like what is stored, so that readers get far into them.
fn nearly_stored() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just("uuid_hex"), Just("datetime_iso"), Just("decimal_str"), Just("no_such")];
    let text = prop_oneof![
        any::<String>(),
        "[0-9a-f-]{30,36}",
        "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{0,7})?)?(Z|[+-][0-2][0-9]:[0-6][0-9])?",
        "[+-]?[0-9._]{0,9}([eE][+-]?[0-9]{0,25})?",
    ];
    let tagged = (name, text, any::<bool>()).prop_map(|(name, text, name_first)| {
        let text = serde_json::to_string(&text).unwrap();
        match name_first {
            true => format!(r#"{{"_type_":"{name}","_data_":{text}}}"#).into_bytes(),
            false => format!(r#"{{"_data_":{text},"_type_":"{name}"}}"#).into_bytes(),
        }
    });
    let damaged = (value(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(value, at, byte)| {
        let mut bytes = encode(&JsonTranscoder::new(), &value).unwrap().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes
    });
    prop_oneof![vec(any::<u8>(), 0..60), tagged, damaged]
}

proptest! {
    #[test]
    fn date_times_come_back(datetime in datetime()) {
        let json = encode(&JsonTranscoder::new(), &Alone(datetime)).unwrap();
        let Alone(read) = decode::<Alone<OffsetDateTime>>(&JsonTranscoder::new(), json).unwrap();
        prop_assert_eq!((read, read.offset()), (datetime, datetime.offset()));
    }

    #[test]
    fn naive_date_times_come_back(datetime in naive_datetime()) {
        let json = encode(&JsonTranscoder::new(), &Alone(datetime)).unwrap();
        prop_assert_eq!(decode::<Alone<PrimitiveDateTime>>(&JsonTranscoder::new(), json).unwrap(), Alone(datetime));
    }

    #[test]
    fn decimals_come_back_with_their_exponents(decimal in decimal()) {
        let json = encode(&JsonTranscoder::new(), &Alone(decimal.clone())).unwrap();
        let Alone(read) = decode::<Alone<BigDecimal>>(&JsonTranscoder::new(), json).unwrap();
        prop_assert_eq!(read.into_bigint_and_exponent(), decimal.into_bigint_and_exponent());
    }

    #[test]
    fn uuids_come_back(uuid in uuid()) {
        let json = encode(&JsonTranscoder::new(), &Alone(uuid)).unwrap();
        prop_assert_eq!(decode::<Alone<Uuid>>(&JsonTranscoder::new(), json).unwrap(), Alone(uuid));
    }

    #[test]
    fn floats_come_back_to_the_last_bit(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        let json = encode(&JsonTranscoder::new(), &float).unwrap();
        prop_assert_eq!(decode::<f64>(&JsonTranscoder::new(), &json).unwrap().to_bits(), bits);
        let plain = float == 0.0 || (1e-4..1e16).contains(&float.abs());
        prop_assert_eq!(json.contains('e'), !plain);
        prop_assert!(json.contains('.') || json.contains('e'));
    }

    #[test]
    fn floats_of_32_bits_come_back(bits in any::<u32>()) {
        let float = f32::from_bits(bits);
        prop_assume!(float.is_finite());
        let json = encode(&JsonTranscoder::new(), &float).unwrap();
        prop_assert_eq!(decode::<f32>(&JsonTranscoder::new(), &json).unwrap().to_bits(), bits);
    }

    #[test]
    fn nested_values_come_back_with_the_same_bytes(value in value()) {
        let json = encode(&JsonTranscoder::new(), &value).unwrap();
        let read: Value = decode(&JsonTranscoder::new(), &json).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(encode(&JsonTranscoder::new(), &read).unwrap(), json);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in nearly_stored()) {
        let transcoder = JsonTranscoder::new();
        let _ = decode::<Alone<Uuid>>(&transcoder, &bytes);
        let _ = decode::<Alone<OffsetDateTime>>(&transcoder, &bytes);
        let _ = decode::<Alone<PrimitiveDateTime>>(&transcoder, &bytes);
        let _ = decode::<Alone<BigDecimal>>(&transcoder, &bytes);
        if let Ok(value) = decode::<Value>(&transcoder, &bytes) {
            // What was read can be written, but for exponents that only this side holds.
            if let Ok(json) = encode(&transcoder, &value) {
                prop_assert_eq!(decode::<Value>(&transcoder, json).unwrap(), value);
            }
        }
    }
}

//! Written values are read as the same values, and no bytes cause a panic when they are read.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/values.rs"]
mod values;

use alone::{Alone, decode, encode};
use es_transcode::{JsonTranscoder, Value, bigdecimal::BigDecimal, uuid::Uuid};
use proptest::{collection::vec, prelude::*};
use time::{OffsetDateTime, PrimitiveDateTime};
use values::{datetime, decimal, naive_datetime, uuid, value};

/// Bytes that resemble stored values, so that errors occur late in the input.
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
            let json = encode(&transcoder, &value).unwrap();
            prop_assert_eq!(decode::<Value>(&transcoder, json).unwrap(), value);
        }
    }
}

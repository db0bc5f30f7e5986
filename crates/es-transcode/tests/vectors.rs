//! The bytes of the Python library, in both of its styles, are read as the right values, and written
//! again with the bytes of its newer style.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/custom.rs"]
mod custom;

use std::collections::BTreeMap;

use alone::Alone;
use custom::{ComplexCustomValue, SimpleCustomValue, transcoder};
use es_core::ErrorKind;
use es_transcode::{Value, bigdecimal::BigDecimal, uuid::Uuid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use time::{
    Date, OffsetDateTime,
    macros::{date, datetime},
};

const VERSION_9_1: &str = include_str!("../../../testdata/python/transcoder-9.1.json");
const VERSION_9_5: &str = include_str!("../../../testdata/python/transcoder-9.5.json");
const UUID: Uuid = Uuid::from_u128(0xb2723fe2_c01a_40d2_875e_a3aac6a09ff5);

fn section<'v>(vectors: &'v Json, name: &str) -> impl Iterator<Item = (&'v str, &'v Json)> {
    vectors[name].as_array().unwrap().iter().map(|vector| (vector["name"].as_str().unwrap(), vector))
}

fn bytes(vectors: &str, name: &str) -> String {
    let vectors: Json = serde_json::from_str(vectors).unwrap();
    let found = section(&vectors, "vectors").find(|(found, _)| *found == name);
    found.unwrap().1["bytes"].as_str().unwrap().to_owned()
}

fn decode<V: DeserializeOwned>(json: &str) -> V {
    alone::decode(&transcoder(), json).unwrap()
}

fn encode<V: Serialize>(value: &V) -> String {
    alone::encode(&transcoder(), value).unwrap()
}

/// Both styles are read as `expected`, and `expected` is written as 9.5 does.
fn check<V: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, expected: &V) {
    let written = bytes(VERSION_9_5, name);
    assert_eq!(decode::<V>(&bytes(VERSION_9_1, name)), *expected, "{name}, 9.1");
    assert_eq!(decode::<V>(&written), *expected, "{name}, 9.5");
    assert_eq!(encode(expected), written, "{name}");
}

#[test]
fn every_vector_passes_through_a_dynamic_value() {
    let old: Json = serde_json::from_str(VERSION_9_1).unwrap();
    let new: Json = serde_json::from_str(VERSION_9_5).unwrap();
    for ((name, old), (_, new)) in section(&old, "vectors").zip(section(&new, "vectors")) {
        let expected = match name {
            // The one difference: BigDecimal has no negative zero, which equals zero.
            "decimals" => new["bytes"].as_str().unwrap().replace("\"-0\"", "\"0\""),
            _ => new["bytes"].as_str().unwrap().to_owned(),
        };
        let from_old: Value = decode(old["bytes"].as_str().unwrap());
        let from_new: Value = decode(new["bytes"].as_str().unwrap());
        assert_eq!(from_old, from_new, "{name}");
        assert_eq!(encode(&from_new), expected, "{name}");
    }
    assert_eq!(section(&new, "vectors").count(), 26);
}

#[test]
fn plain_json() {
    check("dict", &BTreeMap::from([("a".to_owned(), 1)]));
    check("null", &());
    check("bools", &(true, false));
    check("tuple becomes list", &(1, 2, 3));
    check("floats", &[0.1, -0.0, 1e300, 5e-324, f64::MAX, 3.0, 1e16, 123_456_789.123_456_79]);
    check(
        "ints",
        &[
            0_i128,
            -1,
            1 << 31,
            9_007_199_254_740_993,
            i64::MAX.into(),
            i64::MIN.into(),
            u64::MAX.into(),
            1 << 70,
            -(1 << 70),
        ],
    );
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unicode {
        名前: String,
        esc: String,
    }
    let esc = "\"\\/\u{8}\u{c}\n\r\t\0\u{1f}\u{7f}\u{2028}".to_owned();
    check("unicode", &Unicode { 名前: "Żółć 🦀".to_owned(), esc });
}

#[test]
fn uuids() {
    check("uuid", &Alone(UUID));
    check("uuids", &(Alone(UUID), BTreeMap::from([("k".to_owned(), Alone(UUID))])));
}

#[test]
fn datetimes() {
    check("datetime naive", &Alone(datetime!(2021-12-31 23:59:59)));
    check("datetime micro", &Alone(datetime!(2021-12-31 23:59:59.123456)));
    check("datetime max", &Alone(datetime!(9999-12-31 23:59:59.999999)));
    for (name, expected) in [
        ("datetime utc", datetime!(2021-12-31 23:59:59.000001 UTC)),
        ("datetime +05:30", datetime!(2021-01-01 0:00 +5:30)),
        ("datetime -03:00", datetime!(0001-01-01 0:00:00.999999 -3)),
        ("datetime offset with seconds", datetime!(1900-01-01 0:00 +1:02:03)),
    ] {
        check(name, &Alone(expected));
        let Alone(read) = decode::<Alone<OffsetDateTime>>(&bytes(VERSION_9_5, name));
        assert_eq!(read.offset(), expected.offset(), "{name}");
    }
}

#[test]
fn decimals() {
    let written = bytes(VERSION_9_5, "decimals");
    let read: Vec<Alone<BigDecimal>> = decode(&written);
    assert_eq!(read, decode::<Vec<Alone<BigDecimal>>>(&bytes(VERSION_9_1, "decimals")));
    let expected = [
        (0, 0),
        (0, 0),
        (0, 2),
        (12345, 4),
        (-150, 2),
        (1, -30),
        (1, 10),
        (0, -3),
        (123_456_789_012_345_678_901_234_567_890_123_456_789_i128, 9),
        (1, 1),
    ];
    for (Alone(read), (coefficient, scale)) in read.iter().zip(expected) {
        assert_eq!(read.as_bigint_and_exponent(), (coefficient.into(), scale));
    }
    assert_eq!(encode(&read), written.replace("\"-0\"", "\"0\""));
}

#[test]
fn custom_values() {
    let date: Date = date!(2000 - 02 - 20);
    let simple = SimpleCustomValue { id: UUID, date };
    check("date", &Alone(date));
    check("simple custom value", &Alone(simple.clone()));
    check("complex custom value", &Alone(ComplexCustomValue { value: simple }));
}

#[test]
fn objects_that_are_not_exactly_tagged_are_plain_data() {
    for name in ["two keys, only _type_", "two keys, only _data_", "three keys", "only _type_"] {
        assert!(decode::<BTreeMap<String, Json>>(&bytes(VERSION_9_5, name)).len() <= 3, "{name}");
        assert!(matches!(decode(&bytes(VERSION_9_5, name)), Value::Map(_)), "{name}");
    }
}

#[test]
fn errors() {
    for vectors in [VERSION_9_1, VERSION_9_5] {
        let vectors: Json = serde_json::from_str(vectors).unwrap();
        for (name, vector) in section(&vectors, "errors") {
            let (_, expected) = vector["python_error"].as_str().unwrap().split_once(": ").unwrap();
            let Some(hex) = vector["hex"].as_str() else {
                // The type that is not registered; it has another name in Rust.
                let error = alone::encode(&transcoder(), &Alone(std::cell::Cell::new(1))).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Programming, "{name}");
                assert_eq!(error.to_string(), expected.replace("<class 'set'>", "core::cell::Cell<i32>"));
                continue;
            };
            let error = alone::decode::<Value>(&transcoder(), unhex(hex)).unwrap_err();
            if name.contains("unregistered") {
                assert_eq!(error.kind(), ErrorKind::Programming, "{name}");
                assert_eq!(error.to_string(), expected, "{name}");
            } else {
                assert_eq!(error.kind(), ErrorKind::Data, "{name}");
            }
        }
        assert_eq!(section(&vectors, "errors").count(), 6);
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

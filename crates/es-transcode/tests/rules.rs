//! The rules of registration, of tagged objects and of values that cannot be written or read.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;
#[path = "support/custom.rs"]
mod custom;

use std::{collections::BTreeMap, error::Error, panic};

use alone::{Alone, decode, encode};
use custom::SimpleCustomValue;
use es_core::{ErrorKind, PersistenceError, Transcoder, Transcoding};
use es_transcode::{
    AsText, DatetimeAsIso, Integer, JsonTranscoder, Registered, RegisteredAs, UuidAsHex, Value,
    bigdecimal::BigDecimal, decode_part, encode_part, serde_with::serde_as, uuid::Uuid,
};
use serde::{Deserialize, Serialize, Serializer};
use time::{
    Date, OffsetDateTime, PrimitiveDateTime, UtcOffset,
    macros::{date, datetime},
};

const UUID: Uuid = Uuid::from_u128(0xb2723fe2_c01a_40d2_875e_a3aac6a09ff5);
const UUID_JSON: &str = r#"{"_type_":"uuid_hex","_data_":"b2723fe2c01a40d2875ea3aac6a09ff5"}"#;

fn standard() -> JsonTranscoder {
    JsonTranscoder::new()
}

/// The text of an error and its causes.
fn message(error: &PersistenceError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[track_caller]
fn assert_data_error<T: std::fmt::Debug>(result: Result<T, PersistenceError>, reason: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error:?}");
    assert!(message(&error).contains(reason), "{:?} does not contain {reason:?}", message(&error));
}

#[test]
fn registered_values_can_be_nested_in_other_types() {
    #[serde_as(crate = "es_transcode::serde_with")]
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Fields {
        #[serde_as(as = "Option<Registered>")]
        some: Option<Uuid>,
        #[serde_as(as = "Option<Registered>")]
        none: Option<Uuid>,
        #[serde_as(as = "Vec<(Registered, _)>")]
        list: Vec<(Uuid, i32)>,
        #[serde_as(as = "BTreeMap<_, Registered>")]
        map: BTreeMap<String, Uuid>,
    }
    let fields = Fields {
        some: Some(UUID),
        none: None,
        list: vec![(UUID, 1)],
        map: BTreeMap::from([("k".to_owned(), UUID)]),
    };
    let json =
        format!(r#"{{"some":{UUID_JSON},"none":null,"list":[[{UUID_JSON},1]],"map":{{"k":{UUID_JSON}}}}}"#);
    assert_eq!(encode(&standard(), &fields).unwrap(), json);
    assert_eq!(decode::<Fields>(&standard(), json).unwrap(), fields);
}

#[test]
fn registered_values_pass_through_flattened_and_untagged_types() {
    #[serde_as(crate = "es_transcode::serde_with")]
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        #[serde_as(as = "Registered")]
        id: Uuid,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Inner(Inner),
        Other(i32),
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        either: Either,
    }
    let outer = Outer { inner: Inner { id: UUID }, either: Either::Inner(Inner { id: UUID }) };
    let json = format!(r#"{{"id":{UUID_JSON},"either":{{"id":{UUID_JSON}}}}}"#);
    assert_eq!(encode(&standard(), &outer).unwrap(), json);
    assert_eq!(decode::<Outer>(&standard(), json).unwrap(), outer);
}

#[test]
fn the_name_may_come_last() {
    let simple = SimpleCustomValue { id: UUID, date: date!(2000 - 02 - 20) };
    let json = r#"{"_data_":{"id":{"_data_":"b2723fe2-c01a-40d2-875e-a3aac6a09ff5","_type_":"uuid_hex"},
        "date":{"_data_":"2000-02-20","_type_":"date_iso"}},"_type_":"simple_custom_value"}"#;
    assert_eq!(decode::<Alone<SimpleCustomValue>>(&custom::transcoder(), json).unwrap(), Alone(simple));
    let value: Value = decode(&custom::transcoder(), json).unwrap();
    let Value::Custom { name, data } = value else { panic!("{value:?}") };
    assert_eq!(name, "simple_custom_value");
    assert_eq!(data.get("id"), Some(&Value::Uuid(UUID)));
}

#[test]
fn an_object_without_the_exact_tags_is_not_a_registered_value() {
    for json in [
        r#"{"_type_":"uuid_hex"}"#,
        r#"{"_data_":1}"#,
        r#"{"_type_":"uuid_hex","x":1}"#,
        r#"{"_type_":"uuid_hex","_data_":"b2723fe2c01a40d2875ea3aac6a09ff5","z":1}"#,
        r#"{"_type_":"uuid_hex","_type_":"uuid_hex"}"#,
        r#"{}"#,
    ] {
        assert_data_error(decode::<Alone<Uuid>>(&standard(), json), "exactly `_type_` and `_data_`");
    }
    assert_data_error(decode::<Alone<Uuid>>(&standard(), "5"), "for a value of type uuid::Uuid");
}

#[test]
fn a_type_that_is_not_registered_is_not_written() {
    let mut bytes = b"before".to_vec();
    let error = JsonTranscoder::empty().encode(&[Alone(UUID)], &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert_eq!(
        error.to_string(),
        "Object of type uuid::Uuid is not serializable. \
         Please define and register a custom transcoding for this type."
    );
    assert_eq!(bytes, b"before");
    let custom = Value::Custom { name: "no_such".to_owned(), data: Box::default() };
    assert_eq!(encode(&standard(), &custom).unwrap_err().kind(), ErrorKind::Programming);
}

#[test]
fn a_name_that_is_not_registered_is_not_read() {
    let message = "Data serialized with name 'no_such' is not deserializable. \
                   Please register a custom transcoding for this type.";
    for json in [r#"{"_type_":"no_such","_data_":1}"#, r#"{"_data_":1,"_type_":"no_such"}"#] {
        let typed = decode::<Alone<Uuid>>(&standard(), json).unwrap_err();
        let dynamic = decode::<Value>(&standard(), format!("[{json}]")).unwrap_err();
        for error in [typed, dynamic] {
            assert_eq!(error.kind(), ErrorKind::Programming);
            assert_eq!(error.to_string(), message);
        }
    }
}

#[test]
fn a_registered_name_of_another_type_is_refused() {
    let reason = "data serialized with name 'uuid_hex' stands where an object of type";
    assert_data_error(decode::<Alone<BigDecimal>>(&standard(), UUID_JSON), reason);
}

#[test]
fn the_last_registration_of_a_type_writes_and_former_names_stay_readable() {
    #[derive(Debug)]
    struct UuidAsNumber;
    impl Transcoding for UuidAsNumber {
        type Value = Uuid;
        type Encoded<'a> = u128;
        type Decoded = u128;
        fn name(&self) -> &str {
            "uuid_number"
        }
        fn encode(&self, value: &Uuid) -> Result<u128, PersistenceError> {
            Ok(value.as_u128())
        }
        fn decode(&self, number: u128) -> Result<Uuid, PersistenceError> {
            Ok(Uuid::from_u128(number))
        }
    }
    let mut transcoder = standard();
    let before = transcoder.clone();
    transcoder.register(UuidAsNumber);
    let json = encode(&transcoder, &Alone(UUID)).unwrap();
    assert_eq!(json, format!(r#"{{"_type_":"uuid_number","_data_":{}}}"#, UUID.as_u128()));
    for stored in [&*json, UUID_JSON] {
        assert_eq!(decode::<Alone<Uuid>>(&transcoder, stored).unwrap(), Alone(UUID));
        assert_eq!(decode::<Value>(&transcoder, stored).unwrap(), Value::Uuid(UUID));
    }
    assert_eq!(encode(&before, &Alone(UUID)).unwrap(), UUID_JSON);
}

#[test]
fn naive_and_aware_date_times_are_distinguished_by_the_field() {
    let naive = r#"{"_type_":"datetime_iso","_data_":"2021-12-31T23:59:59"}"#;
    let aware = r#"{"_type_":"datetime_iso","_data_":"2021-12-31T23:59:59+00:00"}"#;
    assert_data_error(decode::<Alone<OffsetDateTime>>(&standard(), naive), "has no offset");
    assert_data_error(decode::<Alone<PrimitiveDateTime>>(&standard(), aware), "has an offset");
    assert!(matches!(decode(&standard(), naive).unwrap(), Value::NaiveDatetime(_)));
    assert!(matches!(decode(&standard(), aware).unwrap(), Value::Datetime(_)));
}

#[test]
fn date_times_are_read_as_python_reads_them() {
    let read = |text: &str| DatetimeAsIso.decode(text.into());
    for text in [
        "2021-12-31T23:59:59Z",
        "2021-12-31 23:59:59+00:00",
        "2021-12-31T23:59:59.000+00:00:00",
        "2021-12-31T23:59:59,0-00:00",
    ] {
        assert_eq!(read(text).unwrap(), datetime!(2021-12-31 23:59:59 UTC), "{text}");
    }
    assert_eq!(read("2021-12-31T23:59:59.12+00:00").unwrap(), datetime!(2021-12-31 23:59:59.12 UTC));
    assert_eq!(read("2021-12-31T23:59Z").unwrap(), datetime!(2021-12-31 23:59 UTC));
    assert_eq!(
        read("2021-12-31T23:59:59-23:59:59").unwrap().offset(),
        UtcOffset::from_hms(-23, -59, -59).unwrap()
    );
    for text in [
        "",
        "2021",
        "0000-01-01T00:00:00Z",
        "2021-02-30T00:00:00Z",
        "2021-12-31T24:00:00Z",
        "2021-12-31T23:59:60Z",
        "2021-12-31T23:59:59.Z",
        "2021-12-31T23:59:59.1234567Z",
        "2021-12-31T23:59:59z",
        "2021-12-31T23:59:59+24:00",
        "2021-12-31T23:59:59+00:60",
        "2021-12-31T23:59:59+00:00:00.000001",
        "2021-12-31T23:59:59+00",
        "2021-12-31T23:59:59+0::00",
        "2021-12-31T2::59:59Z",
        "2021-12-31T23:59:59Z ",
        "２021-12-31T23:59:59Z",
        "+021-12-31T23:59:59Z",
    ] {
        assert_data_error(read(text), "not a date and time in ISO format");
    }
}

#[test]
fn date_times_that_python_does_not_hold_are_not_written() {
    for (value, reason) in [
        (datetime!(2021-12-31 23:59:59.000_000_001 UTC), "only whole microseconds"),
        (datetime!(0000-01-01 0:00 UTC), "year 0"),
        (datetime!(-0001-01-01 0:00 UTC), "year -1"),
        (datetime!(2021-12-31 23:59:59 +24:00), "not within a day"),
        (datetime!(2021-12-31 23:59:59 -25:59:59), "not within a day"),
    ] {
        assert_data_error(encode(&standard(), &Alone(value)), reason);
    }
}

#[test]
fn decimals_are_spelled_as_python_spells_them() {
    for text in [
        "0",
        "0.00",
        "0.000000",
        "0E-7",
        "0E+3",
        "1",
        "10",
        "1E+1",
        "1.0E+2",
        "-1.50",
        "0.000001",
        "0.0000010",
        "1E-7",
        "1.2E-7",
        "-1.23E+5",
        "123456789.123456789",
        "1E+30",
        "1E-999999999999999999",
        "9.9E+999999999999999999",
    ] {
        let json = format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#);
        let read: Alone<BigDecimal> = decode(&standard(), &json).unwrap();
        assert_eq!(encode(&standard(), &read).unwrap(), json);
    }
}

#[test]
fn decimals_are_read_as_bigdecimal_reads_them() {
    let spellings =
        ["0", "-0", "-0.00", "00.5", "007", "5.", ".5", "+1.5", "1_0", "1e3", "--1", "-", "1.2.3", "1.-2"]
            .map(str::to_owned)
            .into_iter()
            .chain((1..=40).map(|digits| format!("-9.{}", "9".repeat(digits))))
            .chain((1..=40).map(|digits| "9".repeat(digits)));
    for text in spellings {
        let json = format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#);
        let read = decode::<Alone<BigDecimal>>(&standard(), &json).ok();
        let expected: Option<BigDecimal> = text.parse().ok();
        // Equal decimals may differ in their exponents, which are kept.
        let exactly = |decimal: BigDecimal| decimal.into_bigint_and_exponent();
        assert_eq!(read.map(|read| exactly(read.0)), expected.map(exactly), "{text:?}");
    }
}

#[test]
fn decimals_that_the_other_side_does_not_hold_are_refused() {
    for text in
        ["NaN", "sNaN", "-Infinity", "Infinity", "", ".", "1E", "1E+99999999999999999999", "1 ", "ten"]
    {
        let json = format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#);
        assert_data_error(decode::<Alone<BigDecimal>>(&standard(), json), "not a decimal");
    }
}

/// Regression test: exponents that cannot be written were read.
#[test]
fn exponents_have_the_range_of_python_in_both_directions() {
    let held = [
        "1E+999999999999999999",
        "-9.99E+999999999999999999",
        "0E+999999999999999999",
        "1E-1000000000000000000",
        "0E-1999999999999999997",
        "1E-1999999999999999997",
        "1.23E-1999999999999999995",
    ];
    for text in held {
        let json = format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#);
        let read: Alone<BigDecimal> = decode(&standard(), &json).unwrap();
        assert_eq!(encode(&standard(), &read).unwrap(), json);
    }
    let beyond = [
        "1E+1000000000000000000",
        "0E+1000000000000000000",
        "10E+999999999999999999",
        "1E-1999999999999999998",
        "0E-1999999999999999998",
        "1.23E-1999999999999999996",
        "1E+9223372036854775807",
        "1E-9223372036854775807",
    ];
    for text in beyond {
        let json = format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#);
        assert_data_error(decode::<Alone<BigDecimal>>(&standard(), json), "out of range");
        let decimal: BigDecimal = text.parse().unwrap();
        assert_data_error(encode(&standard(), &Alone(decimal)), "out of range");
    }
}

#[test]
fn floats_are_spelled_as_python_spells_them() {
    for (value, spelling) in [
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-0.000_012_5, "-1.25e-05"),
        (1.5e-7, "1.5e-07"),
        (9_999_999_999_999_998.0, "9999999999999998.0"),
        (1e16, "1e+16"),
        (1.234_567_890_123_456_8e17, "1.2345678901234568e+17"),
        (2.225_073_858_507_201_4e-308, "2.2250738585072014e-308"),
    ] {
        assert_eq!(encode(&standard(), &value).unwrap(), spelling);
    }
    // A float of 32 bits is written with its exact value.
    assert_eq!(encode(&standard(), &0.1_f32).unwrap(), "0.10000000149011612");
}

#[test]
fn floats_that_json_lacks_are_not_written() {
    #[derive(Serialize)]
    enum Shapes {
        Newtype(f64),
        Tuple(f64, f64),
        Struct { float: f32 },
    }
    let nan = f64::NAN;
    assert_data_error(encode(&standard(), &nan), "float NaN");
    assert_data_error(encode(&standard(), &[Some(f64::INFINITY)]), "float inf");
    assert_data_error(encode(&standard(), &BTreeMap::from([("k", f64::NEG_INFINITY)])), "float -inf");
    assert_data_error(encode(&standard(), &Shapes::Newtype(nan)), "float NaN");
    assert_data_error(encode(&standard(), &Shapes::Tuple(1.0, nan)), "float NaN");
    assert_data_error(encode(&standard(), &Shapes::Struct { float: f32::NAN }), "float NaN");
    assert_data_error(encode(&standard(), &Value::List(vec![Value::Float(nan)])), "float NaN");
}

#[test]
fn values_that_json_lacks_are_not_read() {
    for json in [
        "NaN",
        "Infinity",
        "-Infinity",
        "[1e400]",
        r#"["\ud800"]"#,
        r#"["\udc00x"]"#,
        "[1] 2",
        "",
        "{",
        "[01]",
    ] {
        assert_data_error(decode::<Value>(&standard(), json), "not the JSON that is expected");
    }
    assert_data_error(decode::<Value>(&standard(), b"[\"\xff\"]"), "not UTF-8");
    assert_data_error(decode::<serde::de::IgnoredAny>(&standard(), b"[\"\xff\"]"), "not UTF-8");
    // Without the key, encrypted data was only "not UTF-8".
    assert_data_error(decode::<Value>(&standard(), b"\xd9\x00\xff"), "no cipher or compressor is configured");
}

/// An error of decoding had the value that was found, in its text and in `Debug`: personal data, or
/// megabytes.
#[test]
fn errors_of_decoding_do_not_show_the_state() {
    #[derive(Debug, Deserialize)]
    enum Kind {
        A,
    }
    let secret = "a secret ".repeat(10_000);
    let json = format!("[{secret:?}]");
    let errors = [
        decode::<Vec<u64>>(&standard(), &json).unwrap_err(),
        decode::<Vec<Kind>>(&standard(), &json).unwrap_err(),
    ];
    for (error, expected) in
        errors.iter().zip(["invalid type: string, expected u64", "unknown variant, expected `A`"])
    {
        assert!(message(error).contains(expected), "{}", message(error));
        assert!(!message(error).contains("secret") && !format!("{error:?}").contains("secret"), "{error:?}");
    }
    let _ = Kind::A;
}

#[test]
fn a_map_that_would_be_read_as_a_tagged_object_is_not_written() {
    for keys in [["_type_", "_data_"], ["_data_", "_type_"]] {
        let map = Value::Map(keys.map(|key| (key.to_owned(), Value::from("uuid_hex"))).into());
        assert_data_error(encode(&standard(), &map), "a map of exactly");
    }
}

#[test]
fn a_custom_value_with_the_name_of_a_standard_type_is_rejected() {
    let custom = |name: &str| Value::Custom { name: name.to_owned(), data: Box::new("NaN".into()) };
    for name in ["uuid_hex", "datetime_iso", "decimal_str"] {
        assert_data_error(encode(&custom::transcoder(), &custom(name)), "a variant of their own");
    }
    assert!(encode(&custom::transcoder(), &custom("date_iso")).is_ok());
}

/// Such types are written differently for binary formats; JSON could not distinguish the two.
#[test]
fn types_are_written_in_their_human_readable_form() {
    let address = std::net::Ipv4Addr::LOCALHOST;
    assert_eq!(encode(&standard(), &address).unwrap(), "\"127.0.0.1\"");
    assert_eq!(decode::<std::net::Ipv4Addr>(&standard(), "\"127.0.0.1\"").unwrap(), address);
}

#[test]
fn integers_of_any_size_stay_what_they_are() {
    let digits = "9".repeat(Integer::MAX_DIGITS);
    let json = format!("[{digits},-{digits},1.0,10,-0,18446744073709551616]");
    let value: Value = decode(&standard(), &json).unwrap();
    assert_eq!(encode(&standard(), &value).unwrap(), json.replace("-0", "0"));
    let Value::List(values) = value else { panic!("{value:?}") };
    assert_eq!(values[2], Value::Float(1.0));
    assert_eq!(values[3], Value::from(10_i64));
    let Value::Int(large) = &values[5] else { panic!("{:?}", values[5]) };
    assert_eq!(u128::try_from(large).unwrap(), 1 << 64);
    assert_data_error(u64::try_from(large), "no u64");
    assert_data_error(decode::<Value>(&standard(), format!("1{digits}")), "not");
    for text in ["", "-", "+1", "1.0", "1e3", "1_0", "٣"] {
        assert_data_error(text.parse::<Integer>(), "not an integer");
    }
    let seven: Integer = "-007".parse().unwrap();
    assert_eq!(seven, Integer::from(-7_i64));
    assert_eq!((seven.as_str(), seven.to_string().as_str()), ("-7", "-7"));
}

#[test]
fn a_value_within_flattened_types_is_an_error_and_not_a_wrong_value() {
    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(flatten)]
        _rest: BTreeMap<String, Value>,
    }
    assert_data_error(
        decode::<Outer>(&standard(), r#"{"a":1180591620717411303424}"#),
        "any valid JSON value",
    );
}

/// A value whose field names the type of the transcoding.
#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Named(#[serde_as(as = "RegisteredAs<custom::SimpleCustomValueAsDict>")] SimpleCustomValue);

#[test]
fn a_field_that_names_its_transcoding_is_written_and_read_as_others() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Buffered {
        Named(Named),
    }
    let simple = SimpleCustomValue { id: UUID, date: date!(2000 - 02 - 20) };
    let json = encode(&custom::transcoder(), &Alone(simple.clone())).unwrap();
    assert_eq!(encode(&custom::transcoder(), &Named(simple.clone())).unwrap(), json);
    assert_eq!(decode::<Named>(&custom::transcoder(), &json).unwrap(), Named(simple.clone()));
    let data = json.strip_prefix(r#"{"_type_":"simple_custom_value","_data_":"#).unwrap();
    let name_last =
        format!(r#"{{"_data_":{},"_type_":"simple_custom_value"}}"#, data.strip_suffix('}').unwrap());
    assert_eq!(decode::<Named>(&custom::transcoder(), name_last).unwrap(), Named(simple.clone()));
    assert_eq!(
        decode::<Buffered>(&custom::transcoder(), &json).unwrap(),
        Buffered::Named(Named(simple.clone()))
    );
    assert!(serde_json::to_string(&Named(simple)).unwrap_err().to_string().contains("JsonTranscoder"));
}

#[test]
fn a_transcoding_of_another_type_than_the_named_one_is_used_if_it_is_registered() {
    #[derive(Debug)]
    struct Short;
    impl Transcoding for Short {
        type Value = SimpleCustomValue;
        type Encoded<'a> = Alone<Uuid>;
        type Decoded = Alone<Uuid>;
        fn name(&self) -> &str {
            "short"
        }
        fn encode(&self, value: &SimpleCustomValue) -> Result<Alone<Uuid>, PersistenceError> {
            Ok(Alone(value.id))
        }
        fn decode(&self, Alone(id): Alone<Uuid>) -> Result<SimpleCustomValue, PersistenceError> {
            Ok(SimpleCustomValue { id, date: date!(2000 - 02 - 20) })
        }
    }
    let named = || Named(SimpleCustomValue { id: UUID, date: date!(2000 - 02 - 20) });
    let before = encode(&custom::transcoder(), &named()).unwrap();
    let mut transcoder = custom::transcoder();
    transcoder.register(Short);
    let json = encode(&transcoder, &named()).unwrap();
    assert_eq!(json, format!(r#"{{"_type_":"short","_data_":{UUID_JSON}}}"#));
    assert_eq!(decode::<Named>(&transcoder, json).unwrap(), named());
    assert_eq!(decode::<Named>(&transcoder, before).unwrap(), named());
    let error = encode(&standard(), &named()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming, "{error}");
}

#[test]
fn a_part_is_written_and_read_by_the_transcodings_of_the_call() {
    /// Writes ids as JSON within a text.
    #[derive(Debug)]
    struct InText;
    #[derive(Debug, PartialEq)]
    struct Ids(Vec<Alone<Uuid>>);
    impl Transcoding for InText {
        type Value = Ids;
        type Encoded<'a> = String;
        type Decoded = String;
        fn name(&self) -> &str {
            "in_text"
        }
        fn encode(&self, Ids(ids): &Ids) -> Result<String, PersistenceError> {
            let mut text = b"part:".to_vec();
            encode_part(ids, &mut text).map(|()| String::from_utf8(text).unwrap())
        }
        fn decode(&self, text: String) -> Result<Ids, PersistenceError> {
            decode_part(&text.as_bytes()[5..]).map(Ids)
        }
    }
    let mut transcoder = standard();
    transcoder.register(InText);
    let json = encode(&transcoder, &Alone(Ids(vec![Alone(UUID)]))).unwrap();
    assert_eq!(json, format!(r#"{{"_type_":"in_text","_data_":{:?}}}"#, format!("part:[{UUID_JSON}]")));
    assert_eq!(decode::<Alone<Ids>>(&transcoder, json).unwrap(), Alone(Ids(vec![Alone(UUID)])));

    for (part, kind, reason) in [
        (r#"[{"_type_":"no_such","_data_":""}]"#, ErrorKind::Programming, "no_such"),
        (r#"{"a":"a secret"}"#, ErrorKind::Data, "a part of the value is not the JSON that is expected"),
        ("[]]", ErrorKind::Data, "a part of the value"),
    ] {
        let json = format!(r#"{{"_type_":"in_text","_data_":{:?}}}"#, format!("part:{part}"));
        let error = decode::<Alone<Ids>>(&transcoder, json).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        let text = message(&error);
        assert!(text.contains(reason) && !text.contains("secret"), "{text}");
    }
    let mut empty = JsonTranscoder::empty();
    empty.register(InText);
    let error = encode(&empty, &Alone(Ids(vec![Alone(UUID)]))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming, "{error}");
    assert_eq!(encode_part(&1, &mut Vec::new()).unwrap_err().kind(), ErrorKind::Programming);
    assert_eq!(decode_part::<i32>(b"1").unwrap_err().kind(), ErrorKind::Programming);
}

#[test]
fn an_error_of_a_transcoding_keeps_its_kind() {
    #[derive(Debug)]
    struct Broken;
    impl Transcoding for Broken {
        type Value = Date;
        type Encoded<'a> = ();
        type Decoded = Value;
        fn name(&self) -> &str {
            "broken"
        }
        fn encode(&self, _: &Date) -> Result<(), PersistenceError> {
            Err(PersistenceError::not_supported("no dates on Mondays"))
        }
        fn decode(&self, _: Value) -> Result<Date, PersistenceError> {
            Err(PersistenceError::interface("not now"))
        }
    }
    let mut transcoder = standard();
    transcoder.register(Broken);
    let error = encode(&transcoder, &Alone(date!(2000 - 02 - 20))).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotSupported, "no dates on Mondays"));
    let error = decode::<Alone<Date>>(&transcoder, r#"{"_type_":"broken","_data_":[1]}"#).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Interface, "not now"));
}

#[test]
fn a_recovered_error_does_not_hide_a_later_one() {
    #[derive(Debug, Deserialize)]
    #[serde(untagged)]
    #[expect(dead_code, reason = "only whether it can be read is asked")]
    enum Either {
        _Id(Alone<Uuid>),
        _Object(BTreeMap<String, i32>),
    }
    let json = r#"[{"_type_":"no_such","_data_":1},true]"#;
    assert_data_error(decode::<Vec<Either>>(&standard(), json), "did not match any variant");
}

#[test]
fn a_transcoding_may_use_another_transcoder() {
    /// Writes dates as text that another transcoder, with other transcodings, made.
    #[derive(Debug)]
    struct Wrapped(JsonTranscoder);
    #[derive(Debug, PartialEq)]
    struct Birthday(Date);
    impl Transcoding for Wrapped {
        type Value = Birthday;
        type Encoded<'a> = (String, Alone<Uuid>);
        type Decoded = (String, Alone<Uuid>);
        fn name(&self) -> &str {
            "wrapped"
        }
        fn encode(&self, value: &Birthday) -> Result<(String, Alone<Uuid>), PersistenceError> {
            assert_eq!(encode(&self.0, &Alone(UUID)).unwrap_err().kind(), ErrorKind::Programming);
            Ok((encode(&self.0, &Alone(value.0))?, Alone(UUID)))
        }
        fn decode(&self, (text, _): (String, Alone<Uuid>)) -> Result<Birthday, PersistenceError> {
            decode::<Alone<Date>>(&self.0, text).map(|Alone(date)| Birthday(date))
        }
    }
    let mut inner = JsonTranscoder::empty();
    inner.register(AsText::<Date>::new());
    let mut outer = JsonTranscoder::empty();
    outer.register(UuidAsHex);
    outer.register(Wrapped(inner));
    let json = encode(&outer, &Alone(Birthday(date!(2000 - 02 - 20)))).unwrap();
    assert_eq!(
        json,
        format!(
            r#"{{"_type_":"wrapped","_data_":["{{\"_type_\":\"date_iso\",\"_data_\":\"2000-02-20\"}}",{UUID_JSON}]}}"#
        )
    );
    let Alone(read) = decode::<Alone<Birthday>>(&outer, json).unwrap();
    assert_eq!(read, Birthday(date!(2000 - 02 - 20)));
}

/// A type of an HTTP API that is stored, too.
#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    #[serde_as(as = "Registered")]
    id: Uuid,
    #[serde_as(as = "Vec<Registered>")]
    amounts: Vec<BigDecimal>,
    #[serde_as(as = "Option<Registered>")]
    details: Option<SimpleCustomValue>,
}

/// Plain serde once failed for such a field, so a type needed a second one for an API.
#[test]
fn plain_serde_uses_the_form_of_the_type_itself() {
    let details = SimpleCustomValue { id: UUID, date: date!(2000 - 02 - 20) };
    let date = serde_json::to_string(&details.date).unwrap();
    let payment = Payment { id: UUID, amounts: vec!["1.50".parse().unwrap()], details: Some(details) };
    let plain = serde_json::to_string(&payment).unwrap();
    assert_eq!(
        plain,
        format!(r#"{{"id":"{UUID}","amounts":["1.50"],"details":{{"id":"{UUID}","date":{date}}}}}"#)
    );
    assert_eq!(serde_json::from_str::<Payment>(&plain).unwrap(), payment);

    let stored = encode(&custom::transcoder(), &payment).unwrap();
    assert!(
        stored.starts_with(&format!(r#"{{"id":{UUID_JSON},"amounts":[{{"_type_":"decimal_str""#)),
        "{stored}"
    );
    assert_eq!(decode::<Payment>(&custom::transcoder(), &stored).unwrap(), payment);
    assert!(serde_json::from_str::<Payment>(&stored).is_err());
    assert_data_error(decode::<Payment>(&custom::transcoder(), &plain), "an object of `_type_` and `_data_`");
}

#[test]
fn plain_serde_writes_values_without_their_transcodings() {
    let custom = Value::Custom { name: "date_iso".to_owned(), data: Box::new("2000-02-20".into()) };
    let values = Value::List(vec![UUID.into(), BigDecimal::from(5).into(), custom]);
    let plain = serde_json::to_string(&values).unwrap();
    assert_eq!(plain, format!(r#"["{UUID}","5","2000-02-20"]"#));
    let tagged = serde_json::from_str::<Value>(UUID_JSON).unwrap_err().to_string();
    assert!(tagged.contains("known only while a JsonTranscoder works"), "{tagged}");
}

#[test]
fn transcodings_are_available_only_during_a_call_of_a_transcoder() {
    struct Panicking;
    impl Serialize for Panicking {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("a value that panics");
        }
    }
    let outside = "known only while a JsonTranscoder works";
    assert!(serde_json::to_string(&Alone(UUID)).unwrap_err().to_string().contains(outside));
    let transcoder = standard();
    let result =
        panic::catch_unwind(panic::AssertUnwindSafe(|| transcoder.encode(&Panicking, &mut Vec::new())));
    assert!(result.is_err());
    assert!(serde_json::to_string(&Alone(UUID)).unwrap_err().to_string().contains(outside));
    assert_eq!(encode(&transcoder, &Alone(UUID)).unwrap(), UUID_JSON);
}

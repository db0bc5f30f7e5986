//! Input that is designed to exhaust the stack or the memory, or to slow down reading.
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

#[path = "support/alone.rs"]
mod alone;

use alone::{Alone, decode, encode};
use es_core::{ErrorKind, PersistenceError, Transcoding};
use es_transcode::{
    JsonTranscoder, Registered, Value,
    bigdecimal::{BigDecimal, num_bigint::BigInt},
    serde_with::serde_as,
};
use serde::{Deserialize, Serialize};

/// The maximum nesting depth of values.
const MAX_DEPTH: usize = 127;

/// A type whose representation holds values of the same type.
#[serde_as(crate = "es_transcode::serde_with")]
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Tree(#[serde_as(as = "Vec<Registered>")] Vec<Tree>);

#[derive(Debug)]
struct TreeAsList;

impl Transcoding for TreeAsList {
    type Value = Tree;
    type Encoded<'a> = &'a Tree;
    type Decoded = Tree;

    fn name(&self) -> &str {
        "tree"
    }

    fn encode<'a>(&'a self, tree: &'a Tree) -> Result<&'a Tree, PersistenceError> {
        Ok(tree)
    }

    fn decode(&self, tree: Tree) -> Result<Tree, PersistenceError> {
        Ok(tree)
    }
}

fn transcoder() -> JsonTranscoder {
    let mut transcoder = JsonTranscoder::new();
    transcoder.register(TreeAsList);
    transcoder
}

fn decimal(text: &str) -> String {
    format!(r#"{{"_type_":"decimal_str","_data_":"{text}"}}"#)
}

#[track_caller]
fn assert_data_error<T: std::fmt::Debug>(result: Result<T, PersistenceError>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Data);
}

#[test]
fn the_deepest_written_value_can_be_read() {
    let nested = |depth| (1..depth).fold(Value::List(Vec::new()), |value, _| Value::List(vec![value]));
    let deepest = nested(MAX_DEPTH);
    let json = encode(&transcoder(), &deepest).unwrap();
    assert_eq!(decode::<Value>(&transcoder(), json).unwrap(), deepest);
    assert_data_error(encode(&transcoder(), &nested(MAX_DEPTH + 1)));

    // Objects count as well; siblings do not.
    let maps = |depth| (0..depth).fold(Value::Null, |value, _| Value::Map(vec![("a".to_owned(), value)]));
    let beside = Value::List(vec![maps(MAX_DEPTH - 1), maps(MAX_DEPTH - 1)]);
    let json = encode(&transcoder(), &beside).unwrap();
    assert_eq!(decode::<Value>(&transcoder(), json).unwrap(), beside);
    assert_data_error(encode(&transcoder(), &maps(MAX_DEPTH + 1)));
}

#[test]
fn a_value_that_is_nested_too_deep_is_not_read() {
    for depth in [MAX_DEPTH + 1, 100_000] {
        assert_data_error(decode::<Value>(&transcoder(), "[".repeat(depth) + &"]".repeat(depth)));
        assert_data_error(decode::<Value>(&transcoder(), "[".repeat(depth)));
        assert_data_error(decode::<Value>(
            &transcoder(),
            r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth),
        ));
    }
}

#[test]
fn recursive_transcodings_are_written_as_deep_as_they_can_be_read() {
    let nested = |depth| (1..depth).fold(Tree(Vec::new()), |tree, _| Tree(vec![tree]));
    let deepest = Alone(nested(MAX_DEPTH / 2));
    let json = encode(&transcoder(), &deepest).unwrap();
    let (start, end) = (r#"{"_type_":"tree","_data_":["#, "]}");
    assert_eq!(json, start.repeat(MAX_DEPTH / 2) + &end.repeat(MAX_DEPTH / 2));
    assert_eq!(decode::<Alone<Tree>>(&transcoder(), json).unwrap(), deepest);
    assert_data_error(encode(&transcoder(), &Alone(nested(MAX_DEPTH / 2 + 1))));
}

/// Regression test: each level of these took more stack than the one before, and exceeded two megabytes.
#[test]
fn recursive_transcodings_are_bounded_at_every_position_of_the_name() {
    let name_first = (r#"{"_type_":"tree","_data_":["#, "]}");
    let name_last = (r#"{"_data_":["#, r#"],"_type_":"tree"}"#);
    for (start, end) in [name_first, name_last] {
        for depth in [MAX_DEPTH, 20_000] {
            assert_data_error(decode::<Alone<Tree>>(&transcoder(), start.repeat(depth) + &end.repeat(depth)));
        }
        let Alone(tree) = decode::<Alone<Tree>>(&transcoder(), start.repeat(50) + &end.repeat(50)).unwrap();
        let mut depth = 1;
        let mut inner = &tree;
        while let Tree(children) = inner
            && let Some(child) = children.first()
        {
            (inner, depth) = (child, depth + 1);
        }
        assert_eq!(depth, 50);
    }
}

/// Each representation whose name comes last is measured by itself: the object around it does not count.
#[test]
fn the_deepest_representation_that_is_measured_is_read() {
    let nested = |depth| r#"{"_data_":["#.repeat(depth) + &r#"],"_type_":"tree"}"#.repeat(depth);
    let deepest = MAX_DEPTH.div_ceil(2);
    assert!(decode::<Alone<Tree>>(&transcoder(), nested(deepest)).is_ok());
    assert_data_error(decode::<Alone<Tree>>(&transcoder(), nested(deepest + 1)));
}

#[test]
fn large_exponents_are_kept_and_not_spelled_out() {
    for text in ["1E+999999999999", "1E-999999999999", "-1.5E+999999999999999999", "0E+999999999999"] {
        let read: Alone<BigDecimal> = decode(&transcoder(), decimal(text)).unwrap();
        assert_eq!(encode(&transcoder(), &read).unwrap(), decimal(text));
        let value: Value = decode(&transcoder(), decimal(text)).unwrap();
        assert_ne!(value, decode(&transcoder(), decimal("12.5")).unwrap());
        assert_eq!(encode(&transcoder(), &value).unwrap(), decimal(text));
    }
}

#[test]
fn long_decimals_are_bounded() {
    let longest = "9".repeat(100_000);
    let read: Alone<BigDecimal> = decode(&transcoder(), decimal(&longest)).unwrap();
    assert_eq!(encode(&transcoder(), &read).unwrap(), decimal(&longest));
    assert_data_error(decode::<Alone<BigDecimal>>(&transcoder(), decimal(&format!("{longest}.9"))));
    assert_data_error(decode::<Alone<BigDecimal>>(&transcoder(), decimal(&longest.repeat(100))));
    let Alone(longest) = read;
    assert_data_error(encode(&transcoder(), &Alone(longest * BigDecimal::from(10))));
}

/// Regression test: the digits of the exponent counted when a decimal was read, so that the longest written
/// decimals were rejected. More than 65,535 digits after `0.` caused a panic, because a padding width may not
/// be larger.
#[test]
fn the_longest_decimals_that_are_written_are_read() {
    let digits: BigInt = "9".repeat(100_000).parse().unwrap();
    for scale in [-899_999_999_999_999_999, -1, 0, 1, 100_000, 100_005, 100_006, 1_999_999_999_999_999_997] {
        let written = Alone(BigDecimal::new(-digits.clone(), scale));
        let json = encode(&transcoder(), &written).unwrap();
        let Alone(read) = decode::<Alone<BigDecimal>>(&transcoder(), json).unwrap();
        assert_eq!(read.into_bigint_and_scale(), written.0.into_bigint_and_scale());
    }
}

#[test]
fn long_numbers_are_refused() {
    let digits = "9".repeat(1_000_000);
    for json in [digits.clone(), format!("-{digits}"), format!("1e{digits}"), format!("[{digits}")] {
        assert_data_error(decode::<Value>(&transcoder(), json));
    }
    // Beyond the precision of a float, but within its range.
    let value: Value = decode(&transcoder(), format!("0.{digits}")).unwrap();
    assert_eq!(value, Value::Float(1.0));
}

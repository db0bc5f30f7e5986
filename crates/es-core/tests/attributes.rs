//! Values that are encoded as the attributes of an event, and values that are rejected because they could
//! not be read back.

#![expect(clippy::unwrap_used, reason = "these are tests")]

use std::collections::BTreeMap;

use es_core::{
    encode_attributes,
    serde::{Serialize, Serializer, ser::SerializeMap},
};

#[derive(Serialize)]
#[serde(crate = "es_core::serde")]
struct Opened {
    owner: String,
    limit: Option<i64>,
}

#[derive(Serialize)]
#[serde(crate = "es_core::serde")]
struct Amount(i64);

#[derive(Serialize)]
#[serde(crate = "es_core::serde")]
struct Settled;

#[derive(Serialize)]
#[serde(crate = "es_core::serde")]
struct Pair(i64, i64);

#[derive(Serialize)]
#[serde(crate = "es_core::serde")]
enum Change {
    Closed,
    Renamed(String),
    Moved(i64, i64),
    Resized { by: i64 },
}

/// The object that has these attributes, after an existing one.
fn attributes<V: Serialize + ?Sized>(value: &V) -> Result<String, serde_json::Error> {
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    let mut state = serializer.serialize_map(None)?;
    state.serialize_entry("first", &true)?;
    encode_attributes(value, &mut state)?;
    SerializeMap::end(state)?;
    Ok(String::from_utf8(json).unwrap())
}

#[track_caller]
fn assert_refused<V: Serialize + ?Sized>(value: &V, what: &str) {
    let error = attributes(value).unwrap_err().to_string();
    assert_eq!(error, format!("the attributes of an event are a struct or a map, not {what}"));
}

#[test]
fn a_struct_and_a_map_are_written_flat_in_their_order() {
    let opened = Opened { owner: "Ada".to_owned(), limit: None };
    assert_eq!(attributes(&opened).unwrap(), r#"{"first":true,"owner":"Ada","limit":null}"#);
    let map = BTreeMap::from([("owner", "Ada"), ("title", "Dr")]);
    assert_eq!(attributes(&map).unwrap(), r#"{"first":true,"owner":"Ada","title":"Dr"}"#);
    assert_eq!(attributes(&BTreeMap::from([(1, 2)])).unwrap(), r#"{"first":true,"1":2}"#);
    assert_eq!(attributes(&BTreeMap::<String, i64>::new()).unwrap(), r#"{"first":true}"#);
}

#[test]
fn a_value_without_names_is_refused() {
    assert_refused(&true, "a boolean");
    assert_refused(&5, "a number");
    assert_refused(&5.5, "a number");
    assert_refused(&'a', "a character");
    assert_refused("text", "a text");
    assert_refused(&(), "a unit");
    assert_refused(&Settled, "a unit");
    assert_refused(&None::<Opened>, "an option");
    assert_refused(&Some(BTreeMap::from([("owner", "Ada")])), "an option");
    assert_refused(&[5, 6][..], "a sequence");
    assert_refused(&(5, 6), "a tuple");
    assert_refused(&Pair(5, 6), "a tuple");
    assert_refused(&Amount(5), "a newtype, such as `Amount` without `#[serde(transparent)]`");
    assert_refused(&Change::Closed, "an enum");
    assert_refused(&Change::Renamed("b".to_owned()), "an enum");
    assert_refused(&Change::Moved(5, 6), "an enum");
    assert_refused(&Change::Resized { by: 5 }, "an enum");
}

#[test]
fn reserved_names_are_rejected_as_attributes() {
    #[derive(Serialize)]
    #[serde(crate = "es_core::serde")]
    struct Stamped {
        timestamp: i64,
    }
    let refused = |name| format!("`{name}` is reserved and cannot be the name of an attribute");
    let error = attributes(&Stamped { timestamp: 5 }).unwrap_err();
    assert_eq!(error.to_string(), refused("timestamp"));
    for name in ["timestamp", "originator_id", "originator_version", "class_version"] {
        let error = attributes(&BTreeMap::from([(name, 5)])).unwrap_err();
        assert_eq!(error.to_string(), refused(name));
    }
}

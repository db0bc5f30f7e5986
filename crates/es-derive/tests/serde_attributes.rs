//! serde's attributes have their usual meaning on events.

mod support;

use std::collections::BTreeMap;

use es_core::ErrorKind;
use es_derive::Event;
use serde::{Deserialize, Serialize};
use support::{read, state, stored, whole_message, write, written};

#[derive(Clone, Debug, Default, PartialEq, Event)]
#[event(topic = "bank:Opened")]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Opened {
    first_owner: String,
    #[serde(rename = "kind", alias = "sort")]
    r#type: u8,
    #[serde(with = "hex")]
    code: u32,
    #[serde(skip)]
    timestamp: u64,
    class_version: Option<u8>,
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(code: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{code:x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        u32::from_str_radix(<&str>::deserialize(deserializer)?, 16).map_err(D::Error::custom)
    }
}

fn opened() -> Opened {
    Opened { first_owner: "Ada".to_owned(), r#type: 2, code: 255, timestamp: 0, class_version: None }
}

#[test]
fn fields_are_written_as_serde_says() {
    let attributes = r#","firstOwner":"Ada","kind":2,"code":"ff","classVersion":null"#;
    assert_eq!(written(&opened()), ("bank:Opened".to_owned(), state(attributes)));
}

#[test]
fn fields_are_read_as_serde_says() {
    let attributes = r#","code":"ff","sort":2,"firstOwner":"Ada""#;
    assert_eq!(read::<Opened>(&stored("bank:Opened", &state(attributes))).unwrap(), opened());
    assert_eq!(read::<Opened>(&stored("bank:Opened", &state(""))).unwrap(), Opened::default());
}

#[test]
fn unknown_attributes_can_be_denied() {
    let error = read::<Opened>(&stored("bank:Opened", &state(r#","colour":1"#))).unwrap_err();
    assert!(whole_message(&error).contains("unknown field `colour`"), "{error:?}");
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Limited")]
#[serde(default = "unlimited")]
struct Limited {
    limit: u32,
    hard: bool,
}

fn unlimited() -> Limited {
    Limited { limit: u32::MAX, hard: true }
}

#[test]
fn a_default_may_come_from_a_function() {
    let limited: Limited = read(&stored("bank:Limited", &state(r#","hard":false"#))).unwrap();
    assert_eq!(limited, Limited { limit: u32::MAX, hard: false });
}

/// Derives serde's traits too, for another purpose: their attributes do not affect the event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(topic = "bank:Card")]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "UPPERCASE")]
enum CardEvent {
    #[serde(rename = "new")]
    Issued { number: u64 },
    #[serde(rename_all = "PascalCase")]
    Lost { found_by: String },
    Noted {
        text: String,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    },
}

fn noted(key: &str) -> CardEvent {
    CardEvent::Noted { text: "t".to_owned(), more: BTreeMap::from([(key.to_owned(), 1)]) }
}

#[test]
fn an_enum_has_rules_for_the_fields_of_its_variants() {
    let issued = CardEvent::Issued { number: 7 };
    assert_eq!(written(&issued), ("bank:Card.Issued".to_owned(), state(r#","NUMBER":7"#)));
    assert_eq!(read::<CardEvent>(&stored("bank:Card.Issued", &state(r#","NUMBER":7"#))).unwrap(), issued);
    let lost = CardEvent::Lost { found_by: "Ada".to_owned() };
    assert_eq!(written(&lost), ("bank:Card.Lost".to_owned(), state(r#","FoundBy":"Ada""#)));
    assert_eq!(read::<CardEvent>(&stored("bank:Card.Lost", &state(r#","FoundBy":"Ada""#))).unwrap(), lost);
    assert_eq!(serde_json::to_string(&issued).unwrap(), r#"{"kind":"new","NUMBER":7}"#);
}

#[test]
fn a_map_of_attributes_is_flattened() {
    let attributes = state(r#","TEXT":"t","a":1"#);
    assert_eq!(written(&noted("a")), ("bank:Card.Noted".to_owned(), attributes.clone()));
    assert_eq!(read::<CardEvent>(&stored("bank:Card.Noted", &attributes)).unwrap(), noted("a"));
}

#[test]
fn a_reserved_name_that_only_the_value_shows_is_refused_when_it_is_written() {
    for name in ["timestamp", "originator_id", "originator_version", "class_version"] {
        let error = write(&noted(name)).unwrap_err();
        assert!(whole_message(&error).contains(&format!("`{name}`")), "{error:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank")]
enum Wrapping {
    Stamped(Stamped),
    Number(u8),
    List(Vec<u8>),
    Map(BTreeMap<String, u8>),
    Nested(Nested),
    Maybe(Option<Stamped>),
    Nothing(()),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stamped {
    timestamp: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nested(Stamped);

#[test]
fn values_without_names_are_rejected_on_write() {
    use Wrapping::{List, Maybe, Nested as Newtype, Nothing, Number, Stamped as Struct};
    let stamped = Stamped { timestamp: 1 };
    let refused = [
        (Struct(stamped.clone()), "reserved"),
        (Number(1), "a number"),
        (List(vec![1]), "a sequence"),
        (Newtype(Nested(stamped.clone())), "`Nested`"),
        (Maybe(None), "an option"),
        (Maybe(Some(stamped)), "an option"),
        (Nothing(()), "a unit"),
    ];
    for (event, reason) in refused {
        let error = write(&event).unwrap_err();
        assert!(whole_message(&error).contains(reason), "{event:?}: {error:?}");
    }
}

#[test]
fn a_map_inside_a_variant_is_its_attributes() {
    let event = Wrapping::Map(BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    assert_eq!(written(&event), ("bank.Map".to_owned(), state(r#","a":1,"b":2"#)));
    assert_eq!(read::<Wrapping>(&stored("bank.Map", &state(r#","a":1,"b":2"#))).unwrap(), event);
}

/// A struct that contains another, and an empty one.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Audited", alias = "bank:Checked")]
struct Audited(Details);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Details {
    by: String,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Opened")]
struct Nothing;

#[test]
fn structs_of_every_shape_are_events() {
    let audited = Audited(Details { by: "Ada".to_owned() });
    assert_eq!(written(&audited), ("bank:Audited".to_owned(), state(r#","by":"Ada""#)));
    assert_eq!(read::<Audited>(&stored("bank:Checked", &state(r#","by":"Ada""#))).unwrap(), audited);
    assert_eq!(written(&Nothing), ("bank:Opened".to_owned(), state("")));
    assert_eq!(read::<Nothing>(&stored("bank:Opened", &state(""))).unwrap(), Nothing);
    let error = read::<Nothing>(&stored("bank:Closed", &state(""))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
}

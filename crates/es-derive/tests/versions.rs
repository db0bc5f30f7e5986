//! Events whose layout has changed since the first were written.

mod support;

use std::fmt;

use es_core::{ErrorKind, Event};
use es_derive::Event;
use serde::{Deserialize, Serialize};
use support::{read, state, stored, whole_message, written};

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account")]
enum AccountEvent {
    #[event(version = 3, upcast(1 = RenamedV1, 2 = RenamedV2))]
    Renamed {
        first: String,
        last: String,
    },
    #[event(version = 4, upcast(1 = _, 2 = CreditedV2, 3 = _))]
    Credited(Credited),
    #[event(version = 2, upcast(1 = ClosedV1))]
    Closed,
    Burnt,
}

/// The first layout: a name as one text.
#[derive(Deserialize)]
struct RenamedV1 {
    name: String,
}

/// The second layout: its parts in a list, which may be of any length.
#[derive(Deserialize)]
struct RenamedV2 {
    names: Vec<String>,
}

#[derive(Debug)]
struct NotTwoNames(usize);

impl fmt::Display for NotTwoNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} names", self.0)
    }
}

impl std::error::Error for NotTwoNames {}

impl From<RenamedV1> for RenamedV2 {
    fn from(old: RenamedV1) -> Self {
        Self { names: old.name.split(' ').map(str::to_owned).collect() }
    }
}

impl TryFrom<RenamedV2> for AccountEvent {
    type Error = NotTwoNames;

    fn try_from(old: RenamedV2) -> Result<Self, NotTwoNames> {
        let [first, last] = <[String; 2]>::try_from(old.names).map_err(|names| NotTwoNames(names.len()))?;
        Ok(Self::Renamed { first, last })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Credited {
    cents: i64,
    #[serde(default)]
    note: String,
}

#[derive(Deserialize)]
struct CreditedV2 {
    euros: i64,
}

impl From<CreditedV2> for Credited {
    fn from(old: CreditedV2) -> Self {
        Self { cents: old.euros * 100, note: String::new() }
    }
}

#[derive(Deserialize)]
struct ClosedV1 {
    burnt: bool,
}

impl From<ClosedV1> for AccountEvent {
    fn from(old: ClosedV1) -> Self {
        if old.burnt { Self::Burnt } else { Self::Closed }
    }
}

fn renamed() -> AccountEvent {
    AccountEvent::Renamed { first: "Ada".to_owned(), last: "Lovelace".to_owned() }
}

fn read_as(topic: &str, attributes: &str) -> AccountEvent {
    #[expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]
    read(&stored(topic, &state(attributes))).unwrap()
}

#[test]
fn the_version_is_written_last_from_2_on() {
    let attributes = r#","first":"Ada","last":"Lovelace","class_version":3"#;
    assert_eq!(written(&renamed()), ("bank:Account.Renamed".to_owned(), state(attributes)));
    assert_eq!(written(&AccountEvent::Closed).1, state(r#","class_version":2"#));
    assert_eq!(written(&AccountEvent::Burnt).1, state(""));
}

#[test]
fn every_version_is_read() {
    let topic = "bank:Account.Renamed";
    assert_eq!(read_as(topic, r#","name":"Ada Lovelace""#), renamed());
    assert_eq!(read_as(topic, r#","name":"Ada Lovelace","class_version":1"#), renamed());
    assert_eq!(read_as(topic, r#","class_version":2,"names":["Ada","Lovelace"]"#), renamed());
    assert_eq!(read_as(topic, r#","first":"Ada","last":"Lovelace","class_version":3"#), renamed());
}

#[test]
fn a_version_without_a_layout_of_its_own_is_read_as_the_next() {
    let topic = "bank:Account.Credited";
    let credited = |cents, note: &str| AccountEvent::Credited(Credited { cents, note: note.to_owned() });
    assert_eq!(read_as(topic, r#","euros":7"#), credited(700, ""));
    assert_eq!(read_as(topic, r#","euros":7,"class_version":2"#), credited(700, ""));
    assert_eq!(read_as(topic, r#","cents":7,"class_version":3"#), credited(7, ""));
    assert_eq!(read_as(topic, r#","cents":7,"note":"n","class_version":4"#), credited(7, "n"));
}

#[test]
fn an_old_event_may_become_another() {
    assert_eq!(read_as("bank:Account.Closed", r#","burnt":true"#), AccountEvent::Burnt);
    assert_eq!(read_as("bank:Account.Closed", r#","burnt":false"#), AccountEvent::Closed);
    assert_eq!(read_as("bank:Account.Closed", r#","class_version":2"#), AccountEvent::Closed);
}

#[test]
fn a_failing_upcast_is_an_error_that_names_the_event_and_the_cause() {
    let event = stored("bank:Account.Renamed", &state(r#","name":"Ada""#));
    let error = read::<AccountEvent>(&event).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let message = whole_message(&error);
    assert!(message.contains("bank:Account.Renamed") && message.contains("class version 1"), "{message}");
    assert!(message.ends_with("1 names"), "{message}");
}

#[test]
fn a_version_that_is_not_known_is_an_error_that_names_it() {
    for (topic, version) in
        [("bank:Account.Renamed", "4"), ("bank:Account.Renamed", "0"), ("bank:Account.Burnt", "2")]
    {
        let event = stored(topic, &state(&format!(r#","class_version":{version}"#)));
        let error = read::<AccountEvent>(&event).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        let message = error.to_string();
        assert!(
            message.contains(&format!("class version {version}")) && message.contains(topic),
            "{message}"
        );
    }
}

#[test]
fn a_version_that_is_no_number_is_an_error() {
    for version in ["-1", "\"3\"", "null", "4294967296", "3.5"] {
        let event = stored("bank:Account.Renamed", &state(&format!(r#","class_version":{version}"#)));
        assert_eq!(read::<AccountEvent>(&event).unwrap_err().kind(), ErrorKind::Data, "{version}");
    }
}

#[test]
fn class_version_returns_the_written_version() {
    assert_eq!(renamed().class_version(), 3);
    assert_eq!(AccountEvent::Burnt.class_version(), 1);
}

/// A struct has versions too, and its old layout becomes the struct.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Opened", version = 2, upcast(1 = OpenedV1))]
struct Opened {
    owner: String,
}

#[derive(Deserialize)]
struct OpenedV1 {
    name: String,
}

impl From<OpenedV1> for Opened {
    fn from(old: OpenedV1) -> Self {
        Self { owner: old.name }
    }
}

#[test]
fn a_struct_is_upcast() {
    let opened: Opened = read(&stored("bank:Opened", &state(r#","name":"Ada""#))).unwrap();
    assert_eq!(opened, Opened { owner: "Ada".to_owned() });
    assert_eq!(written(&opened).1, state(r#","owner":"Ada","class_version":2"#));
}

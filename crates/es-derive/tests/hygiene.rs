//! Generated code works in programs with their own names, lints and crates.
#![deny(warnings, missing_docs, missing_debug_implementations, unreachable_pub, unused_qualifications)]
#![deny(rust_2018_idioms, future_incompatible, unused_lifetimes, single_use_lifetimes)]

mod support;

use es_core::uuid::Uuid;
use support::{read, state, stored, written};

/// A crate that re-exports the library, as the facade does.
mod facade {
    pub(crate) use es_core::*;
    pub(crate) use es_transcode as transcode;
}

#[derive(Clone, Debug, es_derive::Event)]
#[event(topic = "bank:Opened", crate = crate::facade)]
struct Opened {
    #[event(registered)]
    owner_id: Uuid,
}

#[test]
fn a_crate_that_reexports_the_library_can_be_named() {
    let attributes = r#","owner_id":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000000"}"#;
    assert_eq!(written(&Opened { owner_id: Uuid::nil() }).1, state(attributes));
}

/// Types with the names of other types in the generated code.
mod names {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Registered(pub(crate) u8);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct State(pub(crate) u8);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct Result(pub(crate) u8);

    #[derive(Clone, Debug, PartialEq, es_derive::Event)]
    #[event(topic = "names")]
    pub(crate) enum Event {
        Option { state: State, result: Result, registered: Registered, event: u8, topic: u8 },
        None,
        Err {},
        Self_,
    }
}

#[test]
fn names_of_the_program_keep_their_meaning() {
    use names::{Event, Registered, Result, State};
    let event =
        Event::Option { state: State(1), result: Result(2), registered: Registered(3), event: 4, topic: 5 };
    let attributes = state(r#","state":1,"result":2,"registered":3,"event":4,"topic":5"#);
    assert_eq!(written(&event), ("names.Option".to_owned(), attributes.clone()));
    assert_eq!(read::<Event>(&stored("names.Option", &attributes)).unwrap(), event);
    assert_eq!(read::<Event>(&stored("names.None", &state(""))).unwrap(), Event::None);
    assert_eq!(read::<Event>(&stored("names.Err", &state(""))).unwrap(), Event::Err {});
    assert_eq!(read::<Event>(&stored("names.Self_", &state(""))).unwrap(), Event::Self_);
}

/// A public type with deprecated parts.
#[derive(Clone, Debug, es_derive::Event)]
#[event(topic = "old")]
pub enum Old {
    /// Is no longer written.
    #[deprecated]
    Opened {
        /// Whose.
        owner: String,
    },
    /// Is written.
    Closed,
}

/// The type allows the naming lints; the generated code repeats the names without their warnings.
#[allow(non_camel_case_types, non_snake_case, reason = "names as another language has them")]
#[derive(Clone, Debug, PartialEq, es_derive::Event)]
#[event(topic = "uncommon")]
enum Uncommon {
    credited_v1 {
        amountInCents: i64,
        r#type: i64,
    },
    r#Type,
    _1,
    #[event(const = paid_out)]
    注文,
}

#[test]
fn uncommon_names_are_kept_without_warnings() {
    let event = Uncommon::credited_v1 { amountInCents: 1, r#type: 2 };
    let attributes = state(r#","amountInCents":1,"type":2"#);
    assert_eq!(written(&event), ("uncommon.credited_v1".to_owned(), attributes.clone()));
    assert_eq!(read::<Uncommon>(&stored("uncommon.credited_v1", &attributes)).unwrap(), event);
    assert_eq!(written(&Uncommon::r#Type).0, "uncommon.Type");
    assert_eq!(written(&Uncommon::_1).0, "uncommon._1");
    assert_eq!(Uncommon::paid_out, written(&Uncommon::注文).0.as_str());
}

/// `Self` is another type in the generated code.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, es_derive::Event)]
#[event(topic = "own")]
struct Own {
    bytes: [u8; Self::COUNT],
    inner: Option<Box<Self>>,
}

impl Own {
    const COUNT: usize = 2;
}

#[test]
fn fields_may_name_their_own_type_self() {
    let event = Own { bytes: [1, 2], inner: Some(Box::new(Own { bytes: [3, 4], inner: None })) };
    let attributes = state(r#","bytes":[1,2],"inner":{"bytes":[3,4],"inner":null}"#);
    assert_eq!(written(&event).1, attributes);
    assert_eq!(read::<Own>(&stored("own", &attributes)).unwrap(), event);
}

#[test]
fn events_of_a_function_are_events_too() {
    #[derive(Clone, Debug, es_derive::Event)]
    #[event(topic = "local")]
    struct Outer {
        inner: Inner,
    }

    #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
    struct Inner;

    assert_eq!(written(&Outer { inner: Inner }).1, state(r#","inner":null"#));
    assert_eq!(written(&Old::Closed).0, "old.Closed");
}

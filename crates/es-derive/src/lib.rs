//! `#[derive(Event)]`: topic, class version and flat state of an event type.
//!
//! It implements the trait `Event` of `es-core`: for a struct, which has one topic, or an enum, which
//! has one for each variant. The trait can be implemented by hand instead.
//!
//! # Example
//! ```
//! use es_core::{DomainEvent, Event as _, Mapper, uuid::Uuid};
//! use es_derive::Event;
//! use es_transcode::JsonTranscoder;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Debug, PartialEq, Event)]
//! #[event(topic = "bank:Account")]
//! enum AccountEvent {
//!     // Stored under the topic "bank:Account.Opened".
//!     Opened {
//!         owner: String,
//!         #[event(registered)]
//!         owner_id: Uuid,
//!         #[serde(default)]
//!         remark: Option<String>,
//!     },
//!     // Events that were stored before the variant got its name are still read.
//!     #[event(alias = "bank:Account.Deposited")]
//!     Credited(Credited),
//!     // Events that were stored before the name had two parts are still read.
//!     #[event(version = 2, upcast(1 = RenamedV1))]
//!     Renamed { first: String, last: String },
//!     Closed,
//! }
//!
//! #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
//! struct Credited {
//!     cents: i64,
//! }
//!
//! #[derive(Deserialize)]
//! struct RenamedV1 {
//!     name: String,
//! }
//!
//! impl From<RenamedV1> for AccountEvent {
//!     fn from(old: RenamedV1) -> Self {
//!         let (first, last) = old.name.split_once(' ').unwrap_or((&old.name, ""));
//!         Self::Renamed { first: first.to_owned(), last: last.to_owned() }
//!     }
//! }
//!
//! let mapper = Mapper::new(JsonTranscoder::new());
//! let credited = AccountEvent::Credited(Credited { cents: 500 });
//! let event = DomainEvent::new(Uuid::from_u128(1), 2, credited);
//!
//! let stored = mapper.to_stored_event(&event)?;
//! assert_eq!(stored.topic, "bank:Account.Credited");
//! // {"timestamp":{"_type_":"datetime_iso","_data_":"…"},"cents":500}
//! assert!(stored.state.ends_with(br#","cents":500}"#));
//!
//! assert_eq!(mapper.to_domain_event::<AccountEvent>(&stored)?, event);
//! assert_eq!(AccountEvent::TOPICS.len(), 5);
//! assert_eq!(AccountEvent::CREDITED, stored.topic);
//! # Ok::<(), es_core::PersistenceError>(())
//! ```
//!
//! # Attributes
//! | where | key | meaning |
//! |---|---|---|
//! | struct, variant | `topic = "…"` | The topic. Required, but for the variants of an enum that has one. |
//! | enum | `topic = "…"` | Variants without a topic of their own have this one, a dot, and their name. |
//! | struct, variant | `alias = "…"` | One more topic that is read, never written; may be repeated. |
//! | enum | `transparent` | The variants wrap other event types. See [below](#several-event-types). |
//! | enum | `alias = "…"` | The same for all variants without a topic of their own: the enum's old name. |
//! | struct, variant | `version = 2` | The written class version; 1 by default. See [below](#versions). |
//! | struct, variant | `upcast(1 = …)` | How states of older class versions are read. |
//! | struct, variant | `subject = field` | The event is sealed for a [data subject](#data-subjects). |
//! | struct, variant | `erased = function` | The event that it is after an erasure of the subject. |
//! | struct, variant | `const = NAME` | The name of the [constant](#topics) for the topic; `_` for none. |
//! | struct, enum | `crate = path` | The path of a crate that re-exports the library, as `es_persistence`. |
//! | field | `registered` | The type has a registered transcoding: short for `as = Registered`. |
//! | field | `as = Vec<Registered>` | The same for a part of the type. |
//!
//! Topics are written in quotes, types and paths without.
//!
//! A type derives `Event` by the paths of `es-core` and, for `registered` and `as`, `es-transcode` where
//! the package depends on them, and else by that of `es-persistence`.
//!
//! # Topics
//! `Event::TOPICS` has all topics that are read, aliases included. The topic of each variant is also a
//! constant of the enum, as visible as the enum: `AccountEvent::OPENED` for `Opened`, `SEPA_RECEIVED` for
//! `SEPAReceived`. That of a struct is `TOPIC`.
//!
//! A constant is the topic that is written. Events under an alias are selected by the alias, or by
//! `Event::TOPICS`.
//!
//! A variant whose name is in capitals itself, such as `SEPA`, has no such constant, unless
//! `#[event(const = SEPA_TOPIC)]` names one. A name that is taken, by another variant or by a constant of
//! your own, is a compile error; `const = NAME` chooses another, and `const = _` omits the constant.
//!
//! # Attributes of the event
//! - The fields of a struct or variant are its attributes, in their order.
//! - A newtype variant or struct, such as `Credited(Credited)` above, has the attributes of the value
//!   inside: a struct or map that serde can write and read.
//! - Unit variants and structs have none; `Closed` and `Closed {}` are stored alike.
//! - `timestamp`, `originator_id`, `originator_version`, `class_version` and `_metadata_` are no names for
//!   attributes. A field of such a name is an error when compiled; one that is found only in the
//!   value inside a newtype, or in a flattened map, is an error when the event is written.
//!
//! serde writes and reads the fields, and its attributes have their usual meaning:
//! - on fields all of them (`rename`, `alias`, `default`, `skip`, `skip_serializing_if`, `with`,
//!   `flatten`, …);
//! - on a struct `rename_all`, `default` and `deny_unknown_fields`; on an enum `rename_all_fields` and
//!   `deny_unknown_fields`; on a variant `rename_all`.
//!
//! Other attributes for a `derive(Serialize)` of the type, such as `tag`, do not affect its events;
//! attributes that would change their layout, such as `transparent` or `into`, are an error.
//!
//! Attributes in a state that the type does not have are ignored, unless `deny_unknown_fields` is
//! set: another process may write newer events. Those that are missing are an error that names
//! them, unless they are an `Option` or have a `default`.
//!
//! # Several event types
//! A consumer of several event types, such as a process manager, follows an enum that wraps them. It has
//! their topics, and its events are stored as theirs are:
//! ```
//! # use es_core::Event as _;
//! # use es_derive::Event;
//! # #[derive(Event)]
//! # #[event(topic = "shop:Order")]
//! # enum OrderEvent {
//! #     Placed,
//! #     Cancelled,
//! # }
//! # #[derive(Event)]
//! # #[event(topic = "shop:Payment")]
//! # enum PaymentEvent {
//! #     Received,
//! # }
//! #[derive(Event)]
//! #[event(transparent)]
//! enum ShopEvent {
//!     Order(OrderEvent),
//!     Payment(PaymentEvent),
//! }
//!
//! assert_eq!(ShopEvent::TOPICS, ["shop:Order.Placed", "shop:Order.Cancelled", "shop:Payment.Received"]);
//! ```
//!
//! # Values that the format lacks
//! JSON has no UUIDs, dates or decimals: the transcoder's registry defines how their types are written.
//! `as` takes the adapters of `serde_with`, among them `Registered`, and `_` for serde's own
//! behaviour: `#[event(as = Option<(_, Registered)>)]` for an `Option<(u32, Uuid)>`. A missing `Option`
//! is `None` with an adapter too.
//!
//! # Data subjects
//! `#[event(subject = customer, erased = Self::forgotten)]` seals all attributes of the event with the key of
//! the data subject that the field has: a `Subject` of `es-personal`, a `Uuid` or a `String`. In a newtype,
//! or for a part of a field, it is a path: `subject = person.id`. Timestamp, class version and metadata stay
//! readable. After the subject's erasure, the event is decoded as what the function of the subject returns:
//! a path or a closure, such as `|customer| Self::Forgotten { customer }`. Events that were stored without
//! `subject` are still read. The documentation of `es-personal` has an example.
//!
//! # Versions
//! If a layout changes in a way that the current type cannot read, each older class version gets its own
//! type: any type that derives `Deserialize`. Each is converted to the next by [`From`], or [`TryFrom`]
//! where that can fail, and the last one to the current type: the enum or struct itself, or the value
//! inside a newtype. A new version adds one conversion, and the older ones stay unchanged.
//! ```
//! # use es_derive::Event;
//! # use serde::Deserialize;
//! #[derive(Event)]
//! #[event(topic = "bank:Credited", version = 4, upcast(1 = _, 2 = CreditedV2, 3 = CreditedV3))]
//! struct Credited {
//!     cents: i64,
//!     currency: String,
//! }
//!
//! // 3 had no currency.
//! #[derive(Deserialize)]
//! struct CreditedV3 {
//!     cents: i64,
//! }
//!
//! // 2 counted euros; it had a `#[serde(default)]` that 1 lacks.
//! #[derive(Deserialize)]
//! struct CreditedV2 {
//!     euros: i64,
//!     #[serde(default)]
//!     bonus: i64,
//! }
//!
//! impl From<CreditedV2> for CreditedV3 {
//!     fn from(old: CreditedV2) -> Self {
//!         Self { cents: (old.euros + old.bonus) * 100 }
//!     }
//! }
//!
//! impl From<CreditedV3> for Credited {
//!     fn from(old: CreditedV3) -> Self {
//!         Self { cents: old.cents, currency: "EUR".to_owned() }
//!     }
//! }
//! ```
//! `1 = _` means that the type of the next version reads the states of this one. No version may be
//! omitted: its events would be unreadable. A state of an unknown version is an error that names it. States
//! of a topic with versions need one more pass, to find the version.

mod attributes;
mod constants;
mod crates;
mod event_type;
mod expand;
mod layout;
mod serde_attributes;
mod transparent;

use proc_macro::TokenStream;
use syn::{DeriveInput, Error, parse_macro_input};

use crate::{event_type::EventType, transparent::Transparent};

/// Implements `Event` for a struct or an enum: topics, class versions and flat state.
///
/// The [crate documentation](crate) lists the attributes.
/// ```
/// #[derive(es_derive::Event)]
/// #[event(topic = "bank:Account")]
/// enum AccountEvent {
///     Opened { owner: String },
///     Closed,
/// }
/// ```
#[proc_macro_derive(Event, attributes(event, serde))]
pub fn derive_event(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let expanded = match Transparent::of(&input) {
        Ok(Some(wrapper)) => Ok(wrapper.expand()),
        Ok(None) => EventType::of(input).map(|event| expand::expand(&event)),
        Err(error) => Err(error),
    };
    expanded.unwrap_or_else(Error::into_compile_error).into()
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

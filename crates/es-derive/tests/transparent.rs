//! Enums that wrap other event types are stored and read as these are.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use es_core::{ErrorKind, Event, Topic};
use es_derive::Event;
use serde::Deserialize;
use support::{read, state, stored, write};

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Order", alias = "shop:OldOrder")]
enum OrderEvent {
    Placed { item: String },
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "shop:Payment.Received", version = 2, upcast(1 = InEuros))]
struct Received {
    cents: i64,
}

#[derive(Deserialize)]
struct InEuros {
    euros: i64,
}

impl From<InEuros> for Received {
    fn from(old: InEuros) -> Self {
        Self { cents: old.euros * 100 }
    }
}

#[derive(Clone, Debug, PartialEq, Event)]
#[event(transparent)]
enum ShopEvent {
    Order(OrderEvent),
    Payment(Received),
}

/// Of a wrapper, too.
#[derive(Clone, Debug, PartialEq, Event)]
#[event(transparent)]
enum AnyEvent {
    Shop(ShopEvent),
}

#[test]
fn it_has_the_topics_of_the_wrapped_types() {
    let all = [OrderEvent::TOPICS, Received::TOPICS].concat();
    assert_eq!(ShopEvent::TOPICS, all);
    assert_eq!(AnyEvent::TOPICS, all);
    assert_eq!(all.len(), 5);
}

#[test]
fn it_is_stored_and_read_as_the_wrapped_type() {
    let placed = OrderEvent::Placed { item: "book".to_owned() };
    let received = Received { cents: 500 };
    let wrapped = [ShopEvent::Order(placed.clone()), ShopEvent::Payment(received.clone())];
    for (wrapped, alone) in wrapped.into_iter().zip([write(&placed), write(&received)]) {
        let event = write(&AnyEvent::Shop(wrapped.clone())).unwrap();
        assert_eq!(event, alone.unwrap());
        assert_eq!(read::<ShopEvent>(&event).unwrap(), wrapped);
        assert_eq!(read::<AnyEvent>(&event).unwrap(), AnyEvent::Shop(wrapped));
    }
}

#[test]
fn old_states_and_old_topics_are_read() {
    let old = stored("shop:Payment.Received", &state(r#","euros":3"#));
    assert_eq!(read::<ShopEvent>(&old).unwrap(), ShopEvent::Payment(Received { cents: 300 }));
    let old = stored("shop:OldOrder.Cancelled", &state(""));
    assert_eq!(read::<ShopEvent>(&old).unwrap(), ShopEvent::Order(OrderEvent::Cancelled));
}

#[test]
fn another_topic_is_an_error() {
    let error = read::<ShopEvent>(&stored("shop:Stock.Reserved", &state(""))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming, "{error}");
}

#[test]
#[should_panic = "two types have the same topic"]
fn a_topic_of_two_types_is_an_error_of_the_constant() {
    // In a derived type it is found when the program is compiled.
    let _: [Topic; 4] = Topic::concat(&[OrderEvent::TOPICS, std::slice::from_ref(&OrderEvent::TOPICS[0])]);
}

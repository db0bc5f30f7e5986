//! The stored bytes of derived events, and the events that are read back.

mod support;

use es_core::{ErrorKind, Event, NotificationSelection, Topic};
use es_derive::Event;
use serde::{Deserialize, Serialize};
use support::{read, state, stored, written};
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account", alias = "bank:OldAccount")]
enum AccountEvent {
    Opened {
        owner: String,
        #[event(registered)]
        owner_id: Uuid,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remark: Option<String>,
    },
    #[event(topic = "bank:Account.Credited", alias = "bank:Account.Deposited", alias = "bank:Paid")]
    Credited(Credited),
    Blocked {
        #[event(as = Vec<Registered>)]
        by: Vec<Uuid>,
        #[event(as = Option<(_, Registered)>)]
        case: Option<(u32, Uuid)>,
    },
    r#Reopened {},
    Closed,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Credited {
    cents: i64,
    note: String,
}

const OWNER: Uuid = Uuid::from_u128(1);

fn opened() -> AccountEvent {
    AccountEvent::Opened { owner: "名前 🎉".to_owned(), owner_id: OWNER, remark: None }
}

fn all() -> Vec<(AccountEvent, &'static str, &'static str)> {
    use AccountEvent::{Blocked, Closed, Credited as Paid, Opened, Reopened};
    vec![
        (
            opened(),
            "bank:Account.Opened",
            r#","owner":"名前 🎉","owner_id":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000001"}"#,
        ),
        (
            Opened { owner: "a\"\n".to_owned(), owner_id: OWNER, remark: Some(String::new()) },
            "bank:Account.Opened",
            r#","owner":"a\"\n","owner_id":{"_type_":"uuid_hex","_data_":"00000000000000000000000000000001"},"remark":"""#,
        ),
        (
            Paid(Credited { cents: -5, note: "x".to_owned() }),
            "bank:Account.Credited",
            r#","cents":-5,"note":"x""#,
        ),
        (
            Blocked { by: vec![OWNER], case: Some((7, OWNER)) },
            "bank:Account.Blocked",
            concat!(
                r#","by":[{"_type_":"uuid_hex","_data_":"00000000000000000000000000000001"}]"#,
                r#","case":[7,{"_type_":"uuid_hex","_data_":"00000000000000000000000000000001"}]"#,
            ),
        ),
        (Blocked { by: vec![], case: None }, "bank:Account.Blocked", r#","by":[],"case":null"#),
        (Reopened {}, "bank:Account.Reopened", ""),
        (Closed, "bank:Account.Closed", ""),
    ]
}

#[test]
fn every_shape_is_one_flat_object_under_its_topic() {
    for (event, topic, attributes) in all() {
        assert_eq!(written(&event), (topic.to_owned(), state(attributes)));
    }
}

#[test]
fn written_values_are_read_back() {
    for (event, topic, attributes) in all() {
        assert_eq!(read::<AccountEvent>(&stored(topic, &state(attributes))).unwrap(), event);
    }
}

#[test]
fn aliases_decode_to_the_same_variant() {
    let attributes = state(r#","cents":1,"note":"""#);
    for topic in ["bank:Account.Deposited", "bank:Paid"] {
        let event: AccountEvent = read(&stored(topic, &attributes)).unwrap();
        assert_eq!(event, AccountEvent::Credited(Credited { cents: 1, note: String::new() }));
    }
    assert_eq!(
        read::<AccountEvent>(&stored("bank:OldAccount.Closed", &state(""))).unwrap(),
        AccountEvent::Closed
    );
}

#[test]
fn an_alias_of_the_enum_does_not_apply_to_a_variant_with_its_own_topic() {
    let event = stored("bank:OldAccount.Credited", &state(r#","cents":1,"note":"""#));
    assert!(read::<AccountEvent>(&event).is_err());
}

#[test]
fn topics_lists_all_readable_topics() {
    let expected = [
        "bank:Account.Opened",
        "bank:OldAccount.Opened",
        "bank:Account.Credited",
        "bank:Account.Deposited",
        "bank:Paid",
        "bank:Account.Blocked",
        "bank:OldAccount.Blocked",
        "bank:Account.Reopened",
        "bank:OldAccount.Reopened",
        "bank:Account.Closed",
        "bank:OldAccount.Closed",
    ];
    assert_eq!(AccountEvent::TOPICS, expected);
    assert_eq!(NotificationSelection::new(1).topics(AccountEvent::TOPICS).topics, expected);
}

#[allow(clippy::upper_case_acronyms, reason = "names that a program may have")]
mod payments {
    #[derive(es_derive::Event)]
    #[event(topic = "payment", alias = "transfer")]
    pub(super) enum PaymentEvent {
        SEPAReceived,
        #[event(topic = "iban")]
        IBANChanged2 {},
        // No constant: the variant itself has the name.
        SEPA,
        #[event(const = CARD_TOPIC)]
        CARD,
        #[event(const = _)]
        Refunded,
    }

    impl PaymentEvent {
        pub(super) const REFUNDED: u8 = 7;
    }

    #[derive(es_derive::Event)]
    #[event(topic = "payout")]
    pub(super) struct PaidOut;
}

#[test]
fn each_written_topic_is_a_constant() {
    use payments::{PaidOut, PaymentEvent};
    const SOME: &[Topic] =
        &[PaymentEvent::SEPA_RECEIVED, PaymentEvent::IBAN_CHANGED2, PaymentEvent::CARD_TOPIC];
    assert_eq!(SOME, ["payment.SEPAReceived", "iban", "payment.CARD"]);
    assert_eq!(PaidOut::TOPIC, "payout");
    assert_eq!(PaymentEvent::SEPA.topic(), "payment.SEPA");
    assert_eq!(PaymentEvent::CARD.topic(), PaymentEvent::CARD_TOPIC);
    assert_eq!(
        (PaymentEvent::Refunded.topic(), PaymentEvent::REFUNDED),
        (Topic::from_static("payment.Refunded"), 7)
    );
}

#[test]
fn an_unknown_topic_is_an_error_that_names_it() {
    let error = read::<AccountEvent>(&stored("bank:Account.Burnt", &state(""))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Programming);
    assert!(error.to_string().contains("\"bank:Account.Burnt\""), "{error}");
}

#[test]
fn a_missing_attribute_is_an_error_that_names_it_and_the_event() {
    let error = read::<AccountEvent>(&stored("bank:Paid", &state(r#","cents":1"#))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    let message = support::whole_message(&error);
    assert!(message.contains("missing field `note`") && message.contains("bank:Paid"), "{message}");
}

#[test]
fn a_missing_option_behind_an_adapter_is_none() {
    let event: AccountEvent = read(&stored("bank:Account.Blocked", &state(r#","by":[]"#))).unwrap();
    assert_eq!(event, AccountEvent::Blocked { by: vec![], case: None });
}

#[test]
fn attributes_that_are_not_known_are_ignored() {
    let event = stored("bank:Account.Closed", &state(r#","originator_topic":"bank:Account","x":{"y":[1]}"#));
    assert_eq!(read::<AccountEvent>(&event).unwrap(), AccountEvent::Closed);
}

#[test]
fn a_state_that_is_no_object_is_an_error() {
    for text in ["", "null", "[]", "\"\"", "{", r#"{"timestamp":1}"#] {
        let error = read::<AccountEvent>(&stored("bank:Account.Closed", text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{text}: {error}");
    }
}

#[test]
fn attributes_may_come_in_any_order_around_the_timestamp() {
    let text = state(r#","note":"n""#).replacen('{', r#"{"cents":3,"#, 1);
    let event: AccountEvent = read(&stored("bank:Paid", &text)).unwrap();
    assert_eq!(event, AccountEvent::Credited(Credited { cents: 3, note: "n".to_owned() }));
}

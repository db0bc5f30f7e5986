#![allow(non_camel_case_types)]

use es_derive::Event;

#[derive(Event)]
#[event(topic = "forum")]
enum HidesTopics {
    Topics,
}

#[derive(Event)]
#[event(topic = "forum:Opened", const = TOPICS)]
struct HidesTopicsToo;

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Alike {
    PaidOut,
    Paid_Out,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Hidden {
    #[event(const = SEPA)]
    Received,
    SEPA,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum NoNames {
    #[event(const = "OPENED")]
    Opened,
    #[event(const = CLOSED, const = _)]
    Closed,
}

#[derive(Event)]
#[event(topic = "bank:Account", const = ACCOUNT)]
enum OfEnum {
    Opened,
}

fn main() {}

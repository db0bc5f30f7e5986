use es_derive::Event;

#[derive(Event)]
#[event(topik = "bank:Opened")]
struct OfStruct {}

#[derive(Event)]
#[event(topic = "bank:Account", event::alias = "bank:Account")]
enum OfEnum {
    Opened,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum OfVariantAndField {
    #[event(crate = es_core)]
    Opened,
    Closed {
        #[event(rename = "because")]
        reason: String,
    },
}

#[derive(Event)]
#[event]
struct WithoutKeys {}

fn main() {}

use es_derive::Event;

#[derive(Event)]
#[event(topic = "bank:Opened")]
#[serde(transparent)]
struct Transparent {
    owner: String,
}

#[derive(Event)]
#[event(topic = "bank:Opened")]
#[serde(from = "String", into = "String")]
struct Converted {
    owner: String,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum OfVariant {
    #[serde(skip)]
    Opened,
    #[serde(with = "hex")]
    Closed,
}

fn main() {}

use es_derive::Event;

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Two {
    #[event(registered, as = Vec<Registered>)]
    both: Vec<u8>,
    #[event(registered)]
    #[serde(with = "hex")]
    of_serde: u8,
}

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Inside(#[event(registered)] u8);

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct InsideForSerde(#[serde(with = "hex")] u8);

fn main() {}

use es_derive::Event;

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Generic<T> {
    owner: T,
}

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Borrowed<'a> {
    owner: &'a str,
}

#[derive(Event)]
#[event(topic = "bank:Opened")]
union Union {
    number: u32,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Nothing {}

#[derive(Event)]
#[event(topic = "bank:Opened")]
struct Tuple(String, u32);

#[derive(Event)]
#[event(topic = "bank:Account")]
enum Tuples {
    Opened(String, u32),
    Closed(),
}

fn main() {}

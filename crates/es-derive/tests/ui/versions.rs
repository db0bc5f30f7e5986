use es_derive::Event;

struct V1;
struct V2;

#[derive(Event)]
#[event(topic = "bank:Opened", version = 0)]
struct Zero {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 4294967296)]
struct TooLarge {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 2)]
struct WithoutUpcast {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 4, upcast(1 = V1, 2 = V2))]
struct WithoutTheLast {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 3, upcast(2 = V2))]
struct WithoutTheFirst {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 3, upcast(2 = V2, 1 = V1))]
struct OutOfOrder {}

#[derive(Event)]
#[event(topic = "bank:Opened", version = 2, upcast(1 = V1, 2 = V2))]
struct UpcastOfThePresent {}

#[derive(Event)]
#[event(topic = "bank:Opened", upcast(1 = V1))]
struct WithoutVersion {}

#[derive(Event)]
#[event(topic = "bank:Account", version = 2)]
enum OfTheEnum {
    Opened,
}

#[derive(Event)]
#[event(topic = "bank:Account")]
enum OfVariants {
    #[event(version = 2)]
    Opened,
    #[event(version = 2, upcast())]
    Closed,
}

fn main() {}
